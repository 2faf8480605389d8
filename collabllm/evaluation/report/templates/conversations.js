// The table of conversations: search, sort, open, compare. Texts are unpacked only when they are needed.
const PAGE = 50, KEPT_CHUNKS = 20;

class Conversations {
  constructor(index) {
    this.metrics = index.metrics;
    this.chunk = index.chunk;
    this.packed = document.querySelectorAll("script.chunk");
    this.rows = index.rows.map(([task, arm, user, opening, rollout, training, ending, first, ...scores], idx) => ({
      idx, task, arm, user, opening, rollout, training, ending, first, values: scores,
      get scores() { return Object.fromEntries(index.metrics.map((name, i) => [name, scores[i]])); },
    }));
    this.unpacked = new Map();
    this.texts = null;
    this.open = new Map();
    this.shown = PAGE;
    this.sort = { by: "", down: false };
    this.partners = null;
    this.wire();
    this.draw();
  }

  // By key, the conversations of all trainings of an arm; built when two arms are first compared.
  pairs() {
    if (!this.partners) {
      this.partners = new Map();
      for (const row of this.rows) {
        const key = this.key(row, row.arm);
        this.partners.set(key, [...(this.partners.get(key) || []), row]);
      }
    }
    return this.partners;
  }

  key(row, arm) { return JSON.stringify([row.task, row.user, row.opening, row.rollout, arm]); }

  address(row) {
    return `#c/${[row.task, row.arm, row.user, row.opening, row.rollout, row.training].map(encodeURIComponent).join("/")}`;
  }

  wire() {
    const fill = (id, values, all) => {
      const select = find(id);
      if (all !== null) select.append(new Option(all, ""));
      for (const value of values) select.append(new Option(value, value));
      select.closest("label").hidden = values.length < 2;
    };
    const values = (name) => [...new Set(this.rows.map((row) => row[name]))];
    for (const name of ["arm", "user", "opening"]) fill(`filter-${name}`, values(name), "all");
    fill("filter-ending", values("ending").sort(), "all");
    fill("filter-other", values("arm"), "no other arm");
    fill("filter-metric", this.metrics, null);
    find("filter-task").closest("label").hidden = values("task").length < 2;
    for (const id of ["arm", "user", "opening", "ending", "metric"]) {
      find(`filter-${id}`).addEventListener("change", () => this.restart());
    }
    find("filter-other").addEventListener("change", () => {
      for (const idx of this.open.keys()) this.open.set(idx, this.detail(this.rows[idx]));
      this.restart();
    });
    find("filter-task").addEventListener("input", () => this.restart());
    find("filter-text").addEventListener("input", () => this.search());
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("more").addEventListener("click", () => { this.shown += PAGE; this.draw(); });
    find("close-all").addEventListener("click", () => { this.open.clear(); this.draw(); });
    for (const button of document.querySelectorAll("#list-head button")) {
      button.addEventListener("click", () => {
        const by = button.dataset.by;
        this.sort = this.sort.by === by ? { by, down: !this.sort.down } : { by, down: false };
        this.restart();
      });
    }
  }

  restart() { this.shown = PAGE; this.draw(); }

  async unpack(number) {
    if (!this.unpacked.has(number)) {
      const bytes = Uint8Array.from(atob(this.packed[number].textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      this.unpacked.set(number, new Response(stream).json());
      if (this.unpacked.size > KEPT_CHUNKS) this.unpacked.delete(this.unpacked.keys().next().value);
    }
    return this.unpacked.get(number);
  }

  async body(row) { return (await this.unpack(Math.floor(row.idx / this.chunk)))[row.idx % this.chunk]; }

  // The first search reads all texts once; later ones look into what was read.
  async search() {
    const asked = find("filter-text").value;
    if (asked && !this.texts) {
      this.texts = [];
      for (let number = 0; number < this.packed.length; number++) {
        for (const body of await this.unpack(number)) {
          this.texts.push([body.goal, body.farewell, ...(body.messages || []).map((m) => m.content)]
            .join("\n").toLowerCase());
        }
        find("count").textContent = `Reading ${number + 1} of ${this.packed.length} parts …`;
      }
    }
    if (!asked || this.texts.length === this.rows.length) this.restart();
  }

  matching() {
    const same = ["arm", "user", "opening", "ending"].map((name) => [name, find(`filter-${name}`).value])
      .filter(([, value]) => value);
    const task = find("filter-task").value.toLowerCase();
    const words = this.texts ? find("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    return this.rows.filter((row) =>
      same.every(([name, value]) => String(row[name]) === value) &&
      row.task.toLowerCase().includes(task) &&
      words.every((word) => this.texts[row.idx].includes(word)));
  }

  partner(row) {
    const other = find("filter-other").value;
    if (!other || other === row.arm) return undefined;
    const found = this.pairs().get(this.key(row, other)) || [];
    const own = this.pairs().get(this.key(row, row.arm));
    return found[Math.min(own.indexOf(row), found.length - 1)];  // trainings are paired in order
  }

  score(row) { return row && this.metrics.length ? row.values[find("filter-metric").selectedIndex] : null; }

  difference(row) {
    const [mine, theirs] = [this.score(row), this.score(this.partner(row))];
    return isNumber(mine) && isNumber(theirs) ? mine - theirs : null;
  }

  ordered(found) {
    const { by, down } = this.sort;
    if (!by) return found;
    const value = { task: (row) => row.task, score: (row) => this.score(row), difference: (row) => this.difference(row) }[by];
    const keyed = found.map((row) => [value(row), row]);
    const known = keyed.filter(([v]) => v !== null && v !== undefined);
    known.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
    return [...known, ...keyed.filter(([v]) => v === null || v === undefined)].map(([, row]) => row);
  }

  draw() {
    const found = this.matching(), wanted = new Set(found);
    const kept = [...this.open.keys()].map((idx) => this.rows[idx]).filter((row) => !wanted.has(row));
    const sorted = this.ordered(found);
    const visible = sorted.slice(0, this.shown);
    for (const row of sorted.slice(this.shown)) if (this.open.has(row.idx)) visible.push(row);
    const other = find("filter-other").value;
    find("list").replaceChildren(
      ...kept.flatMap((row) => this.lines(row, true)), ...visible.flatMap((row) => this.lines(row, false)));
    const number = (n) => n.toLocaleString("en");
    find("count").textContent = `${number(found.length)} of ${number(this.rows.length)} conversations`;
    find("more").hidden = sorted.length <= this.shown;
    find("close-all").hidden = this.open.size === 0;
    for (const head of document.querySelectorAll("#list-head th")) {
      const by = head.dataset.by;
      head.setAttribute("aria-sort", this.sort.by !== by ? "none" : this.sort.down ? "descending" : "ascending");
      head.hidden = (by === "score" && !this.metrics.length) || (by === "difference" && (!this.metrics.length || !other));
    }
    find("difference-head").textContent = other ? `minus ${other}` : "";
  }

  lines(row, isKept) {
    const isOpen = this.open.has(row.idx);
    const button = element("button", "opener", element("b", "", row.task));
    button.type = "button";
    button.setAttribute("aria-expanded", String(isOpen));
    button.addEventListener("click", () => this.toggle(row));
    const rollout = row.rollout ? `rollout ${row.rollout}` : "";
    const names = [row.arm, row.training, row.user, row.opening, rollout, row.ending].filter(Boolean).join(" · ");
    const cell = element("th", "", button, element("small", "names", names), element("span", "first", row.first));
    cell.scope = "row";
    if (isKept) cell.append(element("small", "kept", "Open, outside the filter"));
    const line = element("tr", isOpen ? "line is-open" : "line", cell);
    line.dataset.idx = row.idx;
    if (this.metrics.length) line.append(element("td", "number", format(this.score(row))));
    if (this.metrics.length && find("filter-other").value) {
      line.append(element("td", "number", format(this.difference(row), true)));
    }
    return isOpen ? [line, this.open.get(row.idx)] : [line];
  }

  toggle(row) {
    if (!this.open.delete(row.idx)) this.open.set(row.idx, this.detail(row));
    this.draw();
    this.focus(row);
  }

  focus(row) {
    find("list").querySelector(`tr.line[data-idx="${row.idx}"] .opener`).focus({ preventScroll: true });
  }

  detail(row) {
    const link = element("a", "", "Link to this conversation");
    link.href = this.address(row);
    const cell = element("td", "", element("p", "facts", link));
    cell.colSpan = 3;
    const partner = this.partner(row);
    const rows = partner ? [row, partner] : [row];
    Promise.all(rows.map((one) => this.body(one))).then(
      (bodies) => cell.append(dialogue(bodies.map((body, idx) => ({ row: rows[idx], body })))),
      (error) => cell.append(element("p", "fault", `This conversation cannot be unpacked: ${error}`)));
    return element("tr", "detail", cell);
  }

  openAddress() {
    if (!location.hash.startsWith("#c/")) return;
    let parts = [];
    try { parts = location.hash.slice(3).split("/").map(decodeURIComponent); } catch { /* no address of ours */ }
    const row = this.rows.find((one) =>
      [one.task, one.arm, one.user, one.opening, String(one.rollout), one.training].every((part, i) => part === parts[i]));
    if (!row) { find("count").textContent = "The link names a conversation that is not on this page."; return; }
    if (!this.open.has(row.idx)) this.open.set(row.idx, this.detail(row));
    this.draw();
    find("list").querySelector(`tr.line[data-idx="${row.idx}"]`).scrollIntoView();
    this.focus(row);
  }
}
