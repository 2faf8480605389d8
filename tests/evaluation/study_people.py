"""Scripted participants of a study, who ask as a page does."""

import asyncio
import random
import time

import httpx2 as httpx

from tests.pages import Echo


class Quiet(Echo):
    """An arm whose replies do not say its name, and repeat what they answer."""

    async def agenerate(self, messages, *, seed=None):
        reply = await super().agenerate(messages, seed=seed)
        await asyncio.sleep(0.002)
        return type(reply)(f"You said: {messages[-1]['content']}", 3, 5)


class Gone(Exception):
    """The server went away."""


class Participant:
    """Does a whole study by its link; every answer is determined by its number.

    `hasty` ones click twice, reload between steps, and use two tabs.
    """

    def __init__(self, address, code, number, *, turns=2, hasty=True):
        self.address, self.code, self.number = address, code, number
        self.turns, self.hasty = turns, hasty
        self.random = random.Random(number)
        self.seen = []
        self.sent = []

    def ask(self, client, path, body=None):
        """Ask, and again while the server is away; 409 is an answer with the present state."""
        for _ in range(2000):
            try:
                if body is None:
                    answer = client.get(f"/p/{self.code}{path}")
                else:
                    answer = client.post(f"/p/{self.code}{path}", json=body)
            except httpx.TransportError:
                time.sleep(0.25)
                continue
            self.seen.append(answer.text)
            if answer.status_code in (200, 409):
                return answer.json() if path else answer.text
            time.sleep(0.25)
        raise Gone(self.number)

    def run(self):
        """Do what the page asks until it is done."""
        headers = {"Origin": self.address}
        with httpx.Client(base_url=self.address, headers=headers, timeout=20) as client:
            state = self.ask(client, "/state")
            while state["phase"] not in ("done", "refused"):
                state = self.step(client, state)
            return state

    def step(self, client, state):
        if self.hasty and self.random.random() < 0.3:
            self.ask(client, "")  # a reload
            state = self.ask(client, "/state")
        if state["waits"]:
            return self.ask(client, "/wait", {})
        action = self.action(state)
        body = {"step": state["step"], "action": action}
        found = self.ask(client, "/act", body)
        if self.hasty and self.random.random() < 0.4:
            found = self.ask(client, "/act", body)  # a second click, or a second tab: refused
            assert "error" in found
        return found

    def action(self, state):
        phase = state["phase"]
        if phase == "consent":
            return {"kind": "consent", "agree": True}
        if phase == "rate_turn":
            return {"kind": "rate_turn", "interaction": 3}
        if phase == "rate_task":
            grade = 1 + (self.number + state["task_number"]) % 5
            return {"kind": "rate_task", "interaction": grade, "result": grade, "why": self.mark()}
        if phase == "preference":
            return {"kind": "preference", "choice": 1, "why": self.mark()}
        if state["num_turns"] < self.turns:
            text = f"{self.mark()} task {state['task_number']} turn {state['num_turns']}"
            if text not in self.sent:
                self.sent.append(text)
            return {"kind": "message", "text": text}
        return {"kind": "finish"}

    def mark(self):
        """What only this person writes."""
        return f"<person-{self.number}>"
