// One conversation, or two side by side with the words that differ marked.
function dialogue(bodies) {
  const sides = element("div", bodies.length > 1 ? "sides two" : "sides");
  bodies.forEach(({ row, body }, idx) => {
    const other = bodies.length > 1 ? bodies[1 - idx].body : null;
    sides.append(side(row, body, other));
  });
  return sides;
}

function side(row, body, other) {
  const node = element("div", "side", element("h4", "", `${row.arm}: ${row.ending}`));
  if (body.goal) {
    node.append(element("details", "", element("summary", "", "Hidden goal"), element("div", "facts text", body.goal)));
  }
  const scores = Object.entries(row.scores).filter(([, value]) => isNumber(value));
  if (scores.length) {
    node.append(element("p", "facts", scores.map(([name, value]) => `${name} ${value}`).join(" · ")));
  }
  for (const [name, reason] of Object.entries(body.missing || {})) {
    node.append(element("p", "facts fault", `${name} is missing: ${reason}`));
  }
  for (const name of body.tampered || []) node.append(element("p", "facts fault", `${name} is 0: a reply tampered with it`));
  if (body.faults) node.append(element("p", "facts fault", `User's faults: ${body.faults.join(", ")}`));
  if (body.error) node.append(element("p", "facts fault", body.error));
  (body.messages || []).forEach((m, idx) => node.append(message(m, other && (other.messages || [])[idx])));
  if (body.farewell) node.append(element("p", "facts", `The user ends: ${body.farewell}`));
  return node;
}

function message(m, other) {
  const known = ["user", "assistant", "system"].includes(m.role);
  const node = element("div", `message ${known ? m.role : ""}`,
    element("span", "who", m.note ? `${m.role} · ${m.note}` : m.role));
  const text = element("div", "text");
  if (other && other.role === m.role && other.content !== m.content) {
    for (const [word, differs] of markWords(m.content, other.content)) {
      text.append(differs ? element("mark", "", word) : word);
    }
  } else text.append(m.content);
  node.append(text);
  if (m.candidates && m.candidates.length) node.append(candidates(m));
  return node;
}

function candidates(m) {
  const number = m.candidates.length;
  const node = element("details", "candidates",
    element("summary", "", `${number} candidate${number === 1 ? "" : "s"}; ${m.why}`));
  for (const c of m.candidates) {
    const error = isNumber(c.standard_error) ? ` ± ${c.standard_error}` : "";
    const box = element("div", c.chosen ? "candidate chosen" : "candidate",
      element("div", "", element("span", "score", `${c.score}${error}`),
        c.chosen ? " · the conversation's" : "", c.proactive ? " · proactive prompt" : ""),
      element("div", "text", c.text));
    const rewards = Object.entries(c.rewards).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
    if (rewards.length) box.append(element("p", "facts", rewards.join(" · ")));
    c.futures.forEach((future, idx) => {
      box.append(element("details", "", element("summary", "", `Future ${idx + 1}`), ...future.map((f) => message(f))));
    });
    node.append(box);
  }
  return node;
}
