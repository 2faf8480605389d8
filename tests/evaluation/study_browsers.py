"""People of a study in real browser profiles, who click by themselves: a script in each page.

Profiles share a Chromium, but no connection, cookie or storage. The script clicks what a person
would, now and then twice, reloads in between, and remembers in its profile what the page showed.
"""

import json
import time

import httpx2 as httpx
import websocket

PERSON = """
(() => {
  const mark = MARK, chance = (share) => Math.random() < share;
  const shown = new Set(JSON.parse(localStorage.shown || "[]"));
  const click = (node) => { node.click(); if (chance(0.3)) node.click(); };
  const buttons = () => [...document.querySelectorAll("button:enabled")];
  const button = (text) => buttons().find((one) => one.textContent === text);
  const step = () => {
    for (const node of document.querySelectorAll(".message")) shown.add(node.textContent);
    for (const text of JSON.parse(localStorage.shown || "[]")) shown.add(text);  // of another tab
    localStorage.shown = JSON.stringify([...shown]);
    if (document.getElementById("view")?.textContent.includes("That was all.")) return;
    if (chance(0.04)) return location.reload();
    for (const name of ["interaction", "result", "choice"]) {
      const inputs = [...document.querySelectorAll(`input[name=${name}]`)];
      if (inputs.length && !inputs.some((input) => input.checked)) inputs.at(-1).click();
    }
    for (const text of [
      "I have read this and take part", "Go on", "Finish", "I have what I need",
      "Ask again for the reply",
    ]) {
      if (button(text)) return click(button(text));
    }
    const field = document.querySelector("textarea:not(:disabled)");
    if (field && button("Send")) {
      field.value = `${mark} ${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
      field.dispatchEvent(new Event("input"));
      click(button("Send"));
    }
  };
  window.onload = () => setInterval(step, 60);
})();
"""
ENDED = "!!document.getElementById('view')?.textContent.includes('That was all.')"
BROKEN = (
    "document.readyState === 'complete' && location.href !== 'about:blank'"
    " && !document.getElementById('view')"
)
PATIENCE_S = 2.0  # for a page to load


class Browsers:
    """Profiles of one Chromium, by its own protocol.

    Args:
        driver: Selenium's driver of the Chromium.
    """

    def __init__(self, driver):
        where = driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
        url = httpx.get(f"http://{where}/json/version").json()["webSocketDebuggerUrl"]
        self._socket = websocket.create_connection(url, suppress_origin=True, timeout=60)
        self._number = 0
        self._contexts = []

    def ask(self, method, session=None, **params):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": params}
        self._socket.send(json.dumps(call | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                return answer.get("result", {})

    def open_profile(self, url, mark, tabs=1):
        """Let a person of a profile of their own begin, in one tab or more; return the tabs."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        self._contexts.append(context)
        return [Tab(self, context, url, mark) for _ in range(tabs)]

    def close(self):
        """Close all profiles."""
        for context in self._contexts:
            self.ask("Target.disposeBrowserContext", browserContextId=context)
        self._socket.close()


class Tab:
    """One tab of a profile, with a person's script in it."""

    def __init__(self, browsers, context, url, mark):
        self._browsers, self._url, self._asked_at = browsers, url, time.monotonic()
        target = browsers.ask("Target.createTarget", url="about:blank", browserContextId=context)
        attached = browsers.ask("Target.attachToTarget", flatten=True, **target)
        self._session = attached["sessionId"]
        self._ask("Page.enable")
        source = PERSON.replace("MARK", json.dumps(mark))
        self._ask("Page.addScriptToEvaluateOnNewDocument", source=source)
        self._ask("Page.navigate", url=url)

    def _ask(self, method, **params):
        return self._browsers.ask(method, self._session, **params)

    def evaluate(self, expression):
        """Return the value of an expression; None while a page loads."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found.get("result", {}).get("value")

    def has_ended(self):
        """Tell whether it is over for this person; what could not load is asked for again."""
        if self.evaluate(ENDED):
            return True
        late = time.monotonic() > self._asked_at + PATIENCE_S
        if late and self.evaluate(BROKEN):
            self._asked_at = time.monotonic()
            self._ask("Page.navigate", url=self._url)
        return False

    def shown(self):
        """Return all messages that the pages of this profile have shown."""
        return set(json.loads(self.evaluate("localStorage.shown")))
