// The charts, drawn from the embedded results: one a metric, and the asking curve, a panel a user.
const colour = (data, arm) => `colour-${data.arms.indexOf(arm) % 6}`;
const ARROWS = { 1: "↑ higher is better", [-1]: "↓ lower is better", 0: "" };

class Charts {
  constructor(data, conversations) {
    this.data = data;
    this.conversations = conversations;
    const arms = data.arms.map((arm) => ({ key: arm, label: arm }));
    for (const [id, entries] of [["chart-user", data.users], ["chart-opening", data.openings], ["chart-against", arms]]) {
      const select = find(id);
      for (const { key, label } of entries) select.append(new Option(label, key));
      select.closest("label").hidden = entries.length < 2;
      select.addEventListener("change", () => this.draw());
    }
    find("chart-against").value = data.reference;
    this.draw();
    this.drawAsking();
    let width = window.innerWidth;
    window.addEventListener("resize", () => {
      if (window.innerWidth !== width) { width = window.innerWidth; this.drawAsking(); }
    });
  }

  draw() {
    const user = find("chart-user").value, opening = find("chart-opening").value;
    const here = this.data.cells.filter((cell) => cell.user === user && cell.opening === opening);
    const figures = this.data.metrics
      .map((metric) => [metric, here.filter((cell) => cell.metric === metric.name)])
      .filter(([, cells]) => cells.some((cell) => isNumber(cell.mean)))
      .map(([metric, cells]) => this.figure(metric, cells, opening));
    find("charts").replaceChildren(...figures);
    find("no-charts").hidden = figures.length > 0;
  }

  figure(metric, cells, opening) {
    const against = find("chart-against").value;
    const values = cells.flatMap((cell) => [cell.mean, cell.low, cell.high, ...(cell.values || [])]).filter(isNumber);
    let low = Math.min(0, ...values), high = Math.max(...values);
    if (high <= low) high = low + 1;
    const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
    const head = element("tr", "", ...["Arm", "", "Mean [95%]", `Against ${against}`, "p", "Won/tied/lost", "n"]
      .map((text) => { const th = element("th", "", text); th.scope = "col"; return th; }));
    head.children[1].className = "scale";
    head.children[1].append(element("span", "axis", element("span", "", format(low)), element("span", "", format(high))));
    const rows = cells.map((cell) => this.row(cell, this.difference(cell, against), place));
    const caption = element("caption", "", element("b", "", metric.label), " ", element("span", "soft", ARROWS[metric.better[opening] || 0]));
    const table = element("table", "chart", caption, element("thead", "", withRoles(head)), element("tbody", "", ...rows));
    table.setAttribute("role", "table");
    return element("div", "scroll figure", table);
  }

  difference(cell, against) {
    return this.data.differences.find((d) => d.arm === cell.arm && d.reference === against &&
      d.user === cell.user && d.opening === cell.opening && d.metric === cell.metric);
  }

  row(cell, difference, place) {
    const track = element("div", `track ${colour(this.data, cell.arm)}`);
    track.setAttribute("aria-hidden", "true");
    const counts = new Map();
    for (const value of cell.values || []) counts.set(value, (counts.get(value) || 0) + 1);
    for (const [value, count] of counts) {
      const dot = element("i", "task");
      dot.style.left = place(value);
      dot.style.width = dot.style.height = `${Math.min(18, 4 * Math.sqrt(count))}px`;
      track.append(dot);
    }
    if (isNumber(cell.low)) {
      const bar = element("i", "bar");
      bar.style.left = place(cell.low);
      bar.style.right = `calc(100% - ${place(cell.high)})`;
      track.append(bar);
    }
    if (isNumber(cell.mean)) {
      const dot = element("i", "mean");
      dot.style.left = place(cell.mean);
      track.append(dot);
    }
    const name = element("th", "", cell.arm);
    name.scope = "row";
    const line = element("tr", "", name, element("td", "wide", track),
      element("td", "number", isNumber(cell.mean) ? formatInterval(cell) : "–",
        isNumber(cell.noise_floor) ? element("small", "under", `± ${format(cell.noise_floor)} between repeats`) : null,
        cell.tampered ? element("small", "under worse", `${cell.tampered} tampered`) : null),
      element("td", `number ${difference ? difference.verdict : ""}`, difference ? formatInterval(difference, true) : "",
        difference && difference.primary ? element("small", "under", "primary") : null),
      element("td", "number minor", difference ? difference.p : ""),
      element("td", "number minor", difference ? difference.record : ""),
      element("td", "number minor", difference ? difference.n : cell.n,
        cell.missing ? element("small", "under", `${cell.missing} missing`) : null));
    if (difference && difference.p) line.children[4].dataset.label = "p ";
    line.children[6].dataset.label = "n ";
    return withRoles(line);
  }

  drawAsking() {
    const panels = this.data.asking.map((panel) => this.panel(panel));
    find("asking-panels").replaceChildren(...panels);
  }

  panel(panel) {
    const figure = element("figure", "asking", element("figcaption", "", element("b", "", panel.label)));
    const width = Math.min(540, find("asking-panels").clientWidth - 18), height = 200;
    const left = 40, right = 12, floor = height - 26;
    const x = (told) => left + (width - left - right) * told, y = (share) => 8 + (floor - 8) * (1 - share);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `Share of first replies that ask, by the share of facts told; ${panel.label}. The table has the values.` });
    for (const share of [0, 0.5, 1]) {
      svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }),
        shape("text", { class: "end", x: left - 6, y: y(share) + 4 }, String(share)));
    }
    for (const [told, text, anchor] of [[0, "nothing told", "start"], [1, "all told", "end"]]) {
      svg.append(shape("text", { class: anchor, x: x(told), y: floor + 19 }, text));
    }
    panel.arms.forEach(({ arm, points }, idx) => {
      const shift = 4 * (idx - (panel.arms.length - 1) / 2), known = points.filter((p) => isNumber(p.mean));
      const group = shape("g", { class: colour(this.data, arm) });
      group.append(shape("polyline", { points: known.map((p) => `${x(p.told) + shift},${y(p.mean)}`).join(" ") }));
      for (const p of known) {
        if (isNumber(p.low)) group.append(shape("line", { x1: x(p.told) + shift, x2: x(p.told) + shift, y1: y(p.low), y2: y(p.high) }));
        group.append(shape("circle", { cx: x(p.told) + shift, cy: y(p.mean), r: 4 }));
      }
      svg.append(group);
    });
    figure.append(svg, this.askingTable(panel));
    return figure;
  }

  askingTable(panel) {
    const labels = [...new Set(panel.arms.flatMap(({ points }) => points.map((p) => p.label)))];
    const th = (text, scope) => { const node = element("th", "", text); node.scope = scope; return node; };
    const head = element("tr", "", th("Facts told", "col"), ...labels.map((label) => th(label, "col")));
    const rows = panel.arms.map(({ arm, points }) => {
      const name = element("th", "", element("span", `key ${colour(this.data, arm)}`, ""), arm);
      name.scope = "row";
      return element("tr", "", name, ...labels.map((label) => {
        const point = points.find((p) => p.label === label);
        if (!point) return element("td", "number", "–");
        const [mean, interval] = formatInterval(point).split(/ (?=\[)/);
        return element("td", "number", mean, " ", interval ? element("span", "whole", interval) : null);
      }));
    });
    return element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...rows)));
  }
}

// A table that CSS lays out as a grid would lose its meaning for a screen reader without these.
function withRoles(line) {
  line.setAttribute("role", "row");
  for (const cell of line.children) {
    cell.setAttribute("role", cell.tagName === "TD" ? "cell" : cell.scope === "row" ? "rowheader" : "columnheader");
  }
  return line;
}

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
