"""The chat's web application: the page, and the few things that it may ask for."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from collabllm import __version__
from collabllm.chat.talks import MAX_LETTERS, Talks
from collabllm.chat.writing import Writing
from collabllm.web import UserError, content_policy, read_object, to_response


def build_app(talks: Talks, *, beside: str | None = None) -> Starlette:
    """Build the application.

    Args:
        talks: The conversations.
        beside: The arm that the page shows beside the first one at first.
    """
    source = files("collabllm.chat").joinpath("templates/chat.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(source)

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = template.render(
            nonce=nonce,
            arms=list(talks.prompts),
            beside=beside,
            prompts=talks.prompts,
            max_letters=MAX_LETTERS,
            version=__version__,
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": content_policy(nonce)})

    async def begin(request: Request) -> Response:
        given = read_object(await request.body(), arms=list, system_prompt=(str, type(None)))
        arms = [str(arm) for arm in given.get("arms", [])]
        talk = talks.begin(arms, given.get("system_prompt"))
        return JSONResponse({"key": talk.key, "file": f"{talk.name}.jsonl"})

    async def say(request: Request) -> Response:
        given = read_object(await request.body(), key=str, text=str, turn=int)
        await talks.say(given.get("key", ""), given.get("text", ""), given.get("turn", -1))
        return JSONResponse({})

    async def reply(request: Request) -> Response:
        given = read_object(await request.body(), key=str, side=int)
        writing = talks.write(given.get("key", ""), given.get("side", -1))
        return StreamingResponse(_to_lines(request, writing), media_type="application/x-ndjson")

    async def stop(request: Request) -> Response:
        given = read_object(await request.body(), key=str)
        await talks.stop(given.get("key", ""))
        return JSONResponse({})

    handlers: dict[Any, Any] = {UserError: lambda _, error: to_response(error)}
    return Starlette(
        routes=[
            Route("/", page),
            Route("/begin", begin, methods=["POST"]),
            Route("/say", say, methods=["POST"]),
            Route("/reply", reply, methods=["POST"]),
            Route("/stop", stop, methods=["POST"]),
        ],
        exception_handlers=handlers,
    )


async def _to_lines(request: Request, writing: Writing) -> AsyncIterator[str]:
    """Give a line of JSON whenever there is more of a reply; who goes away stops it."""
    leaving = asyncio.create_task(_stop_when_gone(request, writing))
    try:
        async for facts in writing.watch():
            yield json.dumps(facts) + "\n"
    except UserError as error:
        yield json.dumps({"error": str(error), "stopped": error.status == 409}) + "\n"
    finally:
        leaving.cancel()


async def _stop_when_gone(request: Request, writing: Writing) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    writing.task.cancel()
