"""A study's web application: a page a link, its state, and what a person does."""

import secrets
from importlib.resources import files
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from collabllm.evaluation.study.host import Host
from collabllm.evaluation.study.person import MAX_LETTERS
from collabllm.web import UserError, content_policy, read_object, to_response


def build_app(host: Host) -> Starlette:
    """Build the application of a study."""
    place = files("collabllm.evaluation.study").joinpath("templates/study.html.j2")
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        place.read_text(encoding="utf-8")
    )

    def code_of(request: Request) -> str:
        return str(request.path_params["code"])

    async def page(request: Request) -> Response:
        try:
            host.person(code_of(request))
        except UserError as error:
            return PlainTextResponse(str(error), error.status)
        nonce = secrets.token_urlsafe(16)
        text = template.render(
            nonce=nonce, study=host.study, code=code_of(request), max_letters=MAX_LETTERS
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": content_policy(nonce)})

    async def state(request: Request) -> Response:
        return JSONResponse(host.show(host.person(code_of(request))))

    async def act(request: Request) -> Response:
        given = read_object(await request.body(), step=int, action=dict)
        code = code_of(request)
        try:
            person = await host.act(code, given.get("step", -1), given.get("action", {}))
        except UserError as error:
            if error.status != 409:
                raise
            return JSONResponse({"error": str(error), **host.show(host.person(code))}, 409)
        return JSONResponse(host.show(person))

    async def wait(request: Request) -> Response:
        return JSONResponse(host.show(await host.wait_for_reply(code_of(request))))

    handlers: dict[Any, Any] = {UserError: lambda _, error: to_response(error)}
    return Starlette(
        routes=[
            Route("/p/{code}", page),
            Route("/p/{code}/state", state),
            Route("/p/{code}/act", act, methods=["POST"]),
            Route("/p/{code}/wait", wait, methods=["POST"]),
        ],
        exception_handlers=handlers,
    )
