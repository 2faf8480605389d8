"""Small web pages for people: who may ask, how much, and a server on the background loop."""

import asyncio
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from concurrent.futures import wait
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collabllm.event_loop import get_loop

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 200_000
_COOKIE = "collabllm_token"
_GRACE_S = 3
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class UserError(Exception):
    """A request that does not fit; the text is for the person who made it."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def is_loopback(host: str) -> bool:
    """Tell whether a server on this host is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def content_policy(nonce: str) -> str:
    """Return the Content-Security-Policy of a page whose own script and style have a nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class Guard:
    """Lets requests through that a page of this server makes, and no others.

    A foreign page that makes a visitor's browser ask (by its name, by a form, by a script) is
    refused: Host must be this server's, and Origin, where something is changed, the same; what is
    changed comes as JSON of limited length.

    Args:
        app: What is guarded.
        host: That the server is bound to.
        names: Further names by which it may be called.
        token: Asked of every visitor, once in the address (`?token=`), then kept in a cookie.
    """

    def __init__(
        self, app: ASGIApp, host: str, names: Iterable[str] = (), token: str | None = None
    ) -> None:
        self.app, self.token = app, token
        self.at_any_address = not is_loopback(host)
        self.names = {*_LOOPBACK_NAMES, host.lower(), *(name.lower() for name in names)}
        if self.at_any_address:
            self.names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and add the headers of an answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        body = await _read_body(receive, headers)
        if body is None:
            refusal = to_response(UserError("That is too long.", 413))
            await refusal(scope, receive, _with_headers(send))
            return
        await self.app(scope, _replay(body, receive), _with_headers(send))

    def _refuse(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            text = f"This server is not called {host!r}; open it by the address that it printed."
            return PlainTextResponse(text, 421)
        if scope["method"] not in ("GET", "HEAD"):
            if urlsplit(headers.get("origin", "")).netloc != host:
                return PlainTextResponse("Only this server's own page may do that.", 403)
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return PlainTextResponse("Send JSON.", 415)
        return self._ask_token(scope, headers) if self.token else None

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this server: no name that a stranger can register."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.names or (self.at_any_address and _is_address(name))

    def _ask_token(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        assert self.token is not None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _same(given, self.token):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(_COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        cookies: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
        kept = cookies[_COOKIE].value if _COOKIE in cookies else ""
        if _same(kept, self.token):
            return None
        return PlainTextResponse("Open the whole address, with its ?token=…", 401)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


async def _read_body(receive: Receive, headers: Mapping[str, str]) -> bytes | None:
    """Read a body; None if it is too long, whatever its header says."""
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return None
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand on a body that has been read, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


def _with_headers(send: Send) -> Send:
    async def with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *(
                    (name.lower().encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.lower().encode() not in given
                ),
            ]
        await send(message)

    return with_headers


def to_response(error: UserError) -> JSONResponse:
    """Return an error's sentence as JSON."""
    return JSONResponse({"error": str(error)}, error.status)


def read_object(body: bytes, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Read a JSON object of known fields.

    Args:
        body: Body of a request.
        kinds: By name, the types that a field may have; a field may be absent.

    Raises:
        UserError: If it is none, or has other fields or types.
    """
    try:
        found = json.loads(body)
    except ValueError:
        raise UserError("That is not JSON.") from None
    if not isinstance(found, dict) or found.keys() - kinds.keys():
        raise UserError(f"Send a JSON object of {', '.join(kinds)}.")
    for name, value in found.items():
        if not isinstance(value, kinds[name]) or (
            isinstance(value, bool) and kinds[name] is not bool
        ):
            raise UserError(f"{name} has the wrong type.")
    return found


def find_port(host: str, port: int) -> socket.socket:
    """Listen before models load, so that a taken port is told at once; port 0 takes any.

    Raises:
        OSError: If the address is taken, with what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise OSError(f"Cannot listen at {host}:{port} ({error}); use another --port.") from None
    return found


def build_server(app: ASGIApp) -> uvicorn.Server:
    """Make a server that leaves what is under way a moment when it ends."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=500,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C, on the loop on which simulations run, too.

    The server lets go of the listener before this returns. The loop would go on to watch a socket
    that is closed under it, and never see what comes for the next one of its number.
    """
    server = build_server(app)
    future = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), get_loop())
    try:
        future.result()
    finally:
        server.should_exit = True
        wait([future], 2 * _GRACE_S)


def address_of(listener: socket.socket, path: str = "/") -> str:
    """Return the address to open."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://[{shown}]:{port}{path}" if ":" in shown else f"http://{shown}:{port}{path}"
