"""An OpenAI-compatible server on loopback that answers by rule and injects faults on request."""

import json
import random
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "429_retry_after",
    "429",
    "500",
    "drop",
    "stall",
    "invalid_body",
    "empty",
    "length",
    "refusal",
)


class FakeServer:
    """Answers chat completions; use as a context manager.

    `answer(body)` gives the text of a reply, or (text, finish reason); `fault_rate` is the share
    of requests that fail, by a random one of FAULTS. Counts what it delivered in full, by model.
    """

    def __init__(self, answer, fault_rate=0.0, delay_s=0.0, seed=0, faults=FAULTS, port=0):
        self.answer, self.fault_rate, self.delay_s, self.faults = (
            answer,
            fault_rate,
            delay_s,
            faults,
        )
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.delivered: Counter[tuple[str, str]] = Counter()
        self.injected: Counter[str] = Counter()
        self.reject = None  # (status, message[, headers]) for requests that match a predicate
        self.streams = True
        self.tells_usage = True
        self.piece_s = 0.0  # between the pieces of a streamed answer
        self.breaks = 0  # so many streamed answers end after their first piece
        self.cut_below = 0  # requests with fewer `max_tokens` get half an answer
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw = self.rfile.read(int(self.headers["content-length"]))
                server.handle(self, json.loads(raw), dict(self.headers), self.path)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request, client_address):
                pass

        self.http = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()

    def handle(self, handler, body, headers, path):
        with self.lock:
            self.requests.append(body)
            self.headers.append({**headers, "path": path})
            fault = None
            if self.random.random() < self.fault_rate:
                fault = self.random.choice(self.faults)
                self.injected[fault] += 1
        if path.endswith("/load_lora_adapter"):
            return self.send(handler, 200, b'{"ok": true}')
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.reject and (refusal := self.reject(body)):
            return self.send(handler, refusal[0], json.dumps(refusal[1]).encode(), *refusal[2:])
        if fault == "429_retry_after":
            return self.send(handler, 429, b'{"error": {}}', {"retry-after": "0.05"})
        if fault in ("429", "500"):
            return self.send(handler, int(fault), b'{"error": {}}')
        if fault == "drop":
            handler.close_connection = True
            return handler.connection.close()
        if fault == "stall":
            time.sleep(1.5)
            handler.close_connection = True
            return None
        if fault == "invalid_body":
            return self.send(handler, 200, b'{"choices": [')
        answered = self.answer(body)
        text, finish = answered if isinstance(answered, tuple) else (answered, "stop")
        if fault == "empty":
            text = ""
        elif fault == "length" or body.get("max_tokens", self.cut_below) < self.cut_below:
            text, finish = text[: len(text) // 2], "length"
        elif fault == "refusal":
            text = "I'm sorry, but I can't take part in that."
        usage = {"prompt_tokens": len(json.dumps(body["messages"])) // 4}
        usage["completion_tokens"] = len(text) // 4 + 1
        usage["total_tokens"] = sum(usage.values())
        content = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": finish,
                }
            ],
            "usage": usage if self.tells_usage else None,
        }
        with self.lock:
            for name in ("prompt_tokens", "completion_tokens"):
                self.delivered[body["model"], name] += usage[name]
            self.delivered[body["model"], "requests"] += 1
        if body.get("stream") and self.streams:
            return self.stream(handler, content)
        return self.send(handler, 200, json.dumps(content).encode())

    def stream(self, handler, content):
        """Send an answer word by word, as server-sent events; a reader may go away."""
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        (choice,) = content["choices"]
        words = re.findall(r"\s*\S+\s*", choice["message"]["content"])
        pieces = [{"delta": {"content": word}, "finish_reason": None} for word in words]
        ends = {"delta": {}, "finish_reason": choice["finish_reason"]}
        for piece in [*pieces, ends]:
            self.send_event(handler, {"choices": [piece]})
            if self.breaks:
                self.breaks -= 1
                return
            time.sleep(self.piece_s)
        self.send_event(handler, {"choices": [], "usage": content["usage"]})
        handler.wfile.write(b"data: [DONE]\n\n")

    def send_event(self, handler, content):
        try:
            handler.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")
        except ConnectionError:
            with self.lock:
                self.injected["reader gone"] += 1
            raise

    def send(self, handler, status, data, headers=None):
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


def user_json(response, thought="hm", current_answer=""):
    return json.dumps(
        {"thought": thought, "current_answer": current_answer, "response": response},
        ensure_ascii=False,
    )
