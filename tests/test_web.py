"""Who may ask a page's server: its own page, by its own name, with its token, in bounds."""

import os
import signal
import threading

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from collabllm.web import (
    MAX_BODY_BYTES,
    UserError,
    address_of,
    find_port,
    is_loopback,
    read_object,
    serve,
)
from tests.pages import client_of, running


async def home(request):
    return PlainTextResponse("home")


async def change(request):
    return JSONResponse({"length": len(await request.body())})


APP = Starlette(routes=[Route("/", home), Route("/change", change, methods=["POST"])])


def test_its_own_page_may_read_and_change():
    with running(APP) as address, client_of(address) as client:
        home_, changed = client.get("/"), client.post("/change", json={})

    assert (home_.text, changed.json()) == ("home", {"length": 2})
    assert home_.headers["x-frame-options"] == "DENY"
    assert home_.headers["cache-control"] == "no-store"
    assert "server" not in home_.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.1.2.3", "", "["])
def test_other_names_are_refused_so_that_no_foreign_page_can_take_its_own_name_for_ours(host):
    with running(APP) as address, client_of(address) as client:
        answer = client.get("/", headers={"Host": host})

    assert answer.status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1"])
def test_other_origins_change_nothing(origin):
    with running(APP) as address, client_of(address) as client:
        answer = client.post("/change", json={}, headers={"Origin": origin})

    assert answer.status_code == 403


def test_a_form_and_a_long_body_change_nothing():
    with running(APP) as address, client_of(address) as client:
        form = client.post("/change", data={"a": "b"})
        long = client.post("/change", json={"text": "x" * MAX_BODY_BYTES})
        chunks = client.post(
            "/change",
            content=(b"x" * 50_000 for _ in range(5)),
            headers={"Content-Type": "application/json"},
        )

    assert [a.status_code for a in (form, long, chunks)] == [415, 413, 413]
    assert long.json() == {"error": "That is too long."}


def test_a_token_is_asked_once_and_kept_in_a_cookie():
    with running(APP, token="a long secret") as address, client_of(address) as client:
        refused = client.get("/"), client.get("/?token=wrong"), client.post("/change", json={})
        opened = client.get("/?token=a%20long%20secret")
        home_ = client.get("/")

    assert [answer.status_code for answer in refused] == [401, 401, 401]
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "SameSite=strict" in opened.headers["set-cookie"]
    assert home_.text == "home"


def test_fields_are_checked_by_name_and_type():
    assert read_object(b'{"a": 1}', a=int, b=str) == {"a": 1}
    for body in (b"", b"[]", b"{", b'{"c": 1}', b'{"a": "1"}', b'{"a": true}', b"\xff"):
        with pytest.raises(UserError):
            read_object(body, a=int)


def test_a_port_that_is_taken_is_named():
    with (
        find_port("127.0.0.1", 0) as listener,
        pytest.raises(OSError, match=r"use another --port"),
    ):
        find_port("127.0.0.1", listener.getsockname()[1])


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, though a shell may have started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_server_before_its_listener_is_closed(interruptible):
    def interrupt():
        httpx.get(address)
        os.kill(os.getpid(), signal.SIGINT)

    with find_port("127.0.0.1", 0) as listener:
        address = address_of(listener)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            serve(APP, listener)

        assert listener.fileno() == -1  # the loop watches it no longer


def test_loopback_addresses_are_known():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.org", "")))
