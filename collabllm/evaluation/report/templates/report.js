// Starts the page: data, charts, table, keyboard, links.
const table = new Conversations(JSON.parse(find("index").textContent));
const evaluation = JSON.parse(find("evaluation").textContent);
if (evaluation) new Charts(evaluation, table);
window.addEventListener("hashchange", () => table.openAddress());
table.openAddress();

const keys = find("keys");
try { keys.checked = localStorage.getItem("collabllm-keys") !== "off"; } catch { /* a page from disk may have no storage */ }
keys.addEventListener("change", () => {
  try { localStorage.setItem("collabllm-keys", keys.checked ? "on" : "off"); } catch { /* as above */ }
});

document.addEventListener("keydown", (event) => {
  if (!keys.checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target !== keys) return;
  if (event.key === "/") { event.preventDefault(); find("filter-text").focus(); return; }
  if (event.key !== "j" && event.key !== "k") return;
  const heads = [...document.querySelectorAll("#list .opener")];
  const at = heads.indexOf(document.activeElement);
  const next = heads[event.key === "j" ? Math.min(at + 1, heads.length - 1) : Math.max(at - 1, 0)];
  if (next) next.focus();
});
