"use strict";
(() => {
  const PAGE = 30;
  const conversations = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const list = find("list"), more = find("more"), count = find("count");
  let shown = PAGE;

  // Texts only ever become text nodes, so markup in a reply stays text.
  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function fill(id, values, all) {
    const select = find(id);
    if (all !== null) select.append(new Option(all, ""));
    for (const value of values) select.append(new Option(value, value));
    select.addEventListener("change", restart);
    select.closest("label").hidden = values.length < 2;
  }
  const values = (name) => [...new Set(conversations.map((c) => c[name]))];
  fill("filter-task", values("task").sort(), "all");
  fill("filter-group", values("group"), "all");
  fill("filter-outcome", values("outcome").sort(), "all");
  fill("filter-arm", values("arm"), "all");
  fill("filter-other", values("arm"), "no other arm");
  find("filter-text").addEventListener("input", restart);
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { shown += PAGE; draw(); });

  function restart() { shown = PAGE; draw(); }

  const texts = conversations.map((c) =>
    [c.goal, c.ending, ...c.messages.map((m) => m.content)].join("\n").toLowerCase());

  function matching() {
    const wanted = { task: "filter-task", group: "filter-group", outcome: "filter-outcome", arm: "filter-arm" };
    const words = find("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    return conversations.filter((c, idx) =>
      Object.entries(wanted).every(([name, id]) => !find(id).value || c[name] === find(id).value) &&
      words.every((word) => texts[idx].includes(word)));
  }

  function partner(conversation) {
    const other = find("filter-other").value;
    if (!other || other === conversation.arm) return null;
    return conversations.find((c) => c.arm === other && c.task === conversation.task &&
      c.group === conversation.group && c.rollout === conversation.rollout) || null;
  }

  function draw() {
    const found = matching();
    count.textContent = `${found.length} of ${conversations.length} conversations`;
    list.replaceChildren(...found.slice(0, shown).map(card));
    more.hidden = found.length <= shown;
  }

  function card(conversation) {
    const details = element("details", "conversation");
    const summary = element("summary");
    summary.append(element("b", "", conversation.task), " ",
      element("small", "", [conversation.arm, conversation.group, conversation.outcome].filter(Boolean).join(" · ")));
    const user = conversation.messages.find((m) => m.role === "user");
    if (user) summary.append(element("div", "", user.content.slice(0, 140)));
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(conversation));
    });
    return details;
  }

  function body(conversation) {
    const other = partner(conversation);
    const sides = element("div", other ? "sides two" : "sides");
    sides.append(side(conversation));
    if (other) sides.append(side(other));
    return sides;
  }

  function side(c) {
    const node = element("div", "side");
    node.append(element("h4", "", `${c.arm}: ${c.outcome}`));
    if (c.goal) {
      const goal = element("details");
      goal.append(element("summary", "", "hidden goal"), element("div", "facts", c.goal));
      node.append(goal);
    }
    const scores = Object.entries(c.scores).map(([name, value]) => `${name} ${value}`).join(" · ");
    if (scores) node.append(element("p", "facts", scores));
    for (const [name, reason] of Object.entries(c.missing)) {
      node.append(element("p", "facts fault", `${name} is missing: ${reason}`));
    }
    if (c.faults.length) node.append(element("p", "facts fault", `user's faults: ${c.faults.join(", ")}`));
    if (c.error) node.append(element("p", "facts fault", c.error));
    for (const m of c.messages) node.append(message(m));
    if (c.ending) node.append(element("p", "facts", `The user ends: ${c.ending}`));
    return node;
  }

  function message(m) {
    const node = element("div", `message ${m.role}`);
    node.append(element("span", "who", m.note ? `${m.role} · ${m.note}` : m.role));
    node.append(element("div", "text", m.content));
    if (m.candidates && m.candidates.length) node.append(candidates(m));
    return node;
  }

  function candidates(m) {
    const node = element("details", "candidates");
    node.append(element("summary", "", `${m.candidates.length} candidates; went on with: ${m.why}`));
    for (const c of m.candidates) {
      const box = element("div", c.chosen ? "candidate chosen" : "candidate");
      const head = element("div");
      const error = c.standard_error === null || c.standard_error === undefined ? "" : ` ± ${c.standard_error}`;
      head.append(element("span", "score", `${c.score}${error}`),
        ` ${c.chosen ? "chosen" : ""} ${c.proactive ? "proactive prompt" : ""}`);
      box.append(head, element("div", "text", c.text));
      const rewards = Object.entries(c.rewards).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
      if (rewards.length) box.append(element("p", "facts", rewards.join(" · ")));
      c.futures.forEach((future, idx) => {
        const details = element("details");
        details.append(element("summary", "", `future ${idx + 1}`));
        for (const m of future) details.append(message(m));
        box.append(details);
      });
      node.append(box);
    }
    return node;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/") { event.preventDefault(); find("filter-text").focus(); return; }
    if (event.key !== "j" && event.key !== "k") return;
    const heads = [...list.querySelectorAll(".conversation > summary")];
    const at = heads.indexOf(document.activeElement);
    const next = heads[event.key === "j" ? Math.min(at + 1, heads.length - 1) : Math.max(at - 1, 0)];
    if (next) next.focus();
  });
  draw();
})();
