"""A simulated user for the benchmarks: a server on loopback that takes its time to answer."""

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

ANSWERS = (
    "I have not really decided that yet, something simple would be fine with me, to be honest.",
    "Good question. It is for about twenty people, and should not take more than an afternoon.",
    "That sounds all right. Could you also tell me what I have to prepare the day before, please?",
)


class UserServer(BaseHTTPRequestHandler):
    """Answers after half a second, like a small remote model; no two conversations are alike."""

    protocol_version = "HTTP/1.1"
    delay_s = 0.5

    def do_POST(self) -> None:
        """Send one user turn."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.delay_s)
        turn = body["messages"][0]["content"].count('"role": "assistant"')
        prompt = body["messages"][0]["content"]
        number = int(prompt.split("conversation number ")[1].split(":")[0])
        text = f"Number {number}. " + " ".join([ANSWERS[(turn + number) % 3]] * (1 + number % 2))
        content = json.dumps({"thought": "", "current_answer": "", "response": text})
        data = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "user",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": content},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""
