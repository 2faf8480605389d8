// Texts only ever become text nodes, so markup in a reply stays text.
function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const find = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function format(value, signed = false, digits = 2) {
  if (!isNumber(value)) return "–";
  const text = Math.abs(value).toFixed(digits === 2 && Math.abs(value) >= 10 ? 1 : digits);
  const zero = Number(text) === 0;
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
}

function formatInterval(entry, signed = false) {
  if (!isNumber(entry.low) || !isNumber(entry.high)) return format(entry.mean, signed);
  const width = entry.high - entry.low;  // as count_digits of formats.py
  const digits = width > 1e-9 && width < 0.01 ? Math.ceil(-Math.log10(width)) : 2;
  const [mean, low, high] = [entry.mean, entry.low, entry.high].map((value) => format(value, signed, digits));
  return `${mean} [${low}, ${high}]`;
}

// The words that one text has and the other lacks, as [word, differs] pairs.
function markWords(text, other) {
  const words = text.split(/(\s+)/), others = other.split(/(\s+)/);
  let start = 0, end = 0;
  const shortest = Math.min(words.length, others.length);
  while (start < shortest && words[start] === others[start]) start++;
  while (end < shortest - start && words.at(-1 - end) === others.at(-1 - end)) end++;
  const mine = words.slice(start, words.length - end), theirs = others.slice(start, others.length - end);
  const shared = mine.length * theirs.length <= 400000 ? commonWords(mine, theirs) : new Set();
  return words.map((word, idx) =>
    [word, idx >= start && idx < words.length - end && !shared.has(idx - start) && word.trim() !== ""]);
}

// Places in `mine` of a longest common subsequence.
function commonWords(mine, theirs) {
  const width = theirs.length + 1;
  const best = new Uint16Array((mine.length + 1) * width);
  for (let i = mine.length - 1; i >= 0; i--) {
    for (let j = theirs.length - 1; j >= 0; j--) {
      best[i * width + j] = mine[i] === theirs[j]
        ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const found = new Set();
  for (let i = 0, j = 0; i < mine.length && j < theirs.length;) {
    if (mine[i] === theirs[j]) { found.add(i); i++; j++; }
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return found;
}
