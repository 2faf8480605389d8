"""A Hub on loopback: accounts, repositories and uploads, as huggingface_hub talks to it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

SECRET = "hf_verysecretvalue"


class Hub(BaseHTTPRequestHandler):
    """Answers whoami, create_repo and uploads as the Hub does.

    `status` is the answer to creating and committing; weights go through LFS, texts into the
    commit; `files` has what a commit named, by path.
    """

    protocol_version = "HTTP/1.1"
    status = 200
    created: ClassVar[list[dict]] = []
    stored: ClassVar[dict[str, bytes]] = {}
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self):
        if not self.path.startswith("/api/whoami"):
            return self.answer(404, {"error": "not found"})
        known = self.headers.get("authorization") == f"Bearer {SECRET}"
        return self.answer(200 if known else 401, {"name": "ada", "auth": {}})

    def do_POST(self):
        raw = self.read_body()
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(raw)["files"]]
            return self.answer(200, {"files": [self.upload_mode(name) for name in names]})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.answer(200, {"transfer": "basic", "objects": self.uploads(raw)})
        if "/commit/" in self.path and self.status == 200:
            self.commit(raw)
        elif self.path.endswith("/repos/create") and self.status == 200:
            self.created.append(json.loads(raw))
        url = f"http://{self.headers['host']}/ada/run"
        return self.answer(
            self.status, {"url": url, "name": "ada/run", "commitUrl": url, "commitOid": "1" * 40}
        )

    def do_PUT(self):
        self.stored[self.path] = self.read_body()
        self.answer(200, {})

    def read_body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def upload_mode(self, name):
        mode = "lfs" if name.endswith(".safetensors") else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def uploads(self, raw):
        return [
            {**one, "actions": {"upload": {"href": f"http://{self.headers['host']}/{one['oid']}"}}}
            for one in json.loads(raw)["objects"]
        ]

    def commit(self, raw):
        for line in map(json.loads, raw.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[f"/{value['oid']}"]

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    handler = type("Handler", (Hub,), {"created": [], "status": 200, "stored": {}, "files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # plain LFS
    monkeypatch.setenv("HF_TOKEN", SECRET)
    yield handler
    server.shutdown()
    server.server_close()
