"""What the embedded registry reads of a request: its query, its body, and what is wrong with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from fingerpost.registry.embedded.state import views
from fingerpost.registry.embedded.state.definitions import (
    BadRequest,
    parse_bool,
    parse_duration_s,
)

if TYPE_CHECKING:
    from fingerpost.registry.http.app import Handler

__all__ = ["bad_requests", "blocking", "flag", "unknown_paths", "whole_body"]

_BODY_S: Final = 10.0
_DEFAULT_WAIT_S: Final = 300.0
_MAX_WAIT_S: Final = 600.0


def blocking(request: web.Request) -> tuple[int, float]:
    """The index (0: do not wait) and seconds to wait of a query. Raises `BadRequest`."""
    if "stale" in request.query and "consistent" in request.query:
        raise BadRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
    datacenter = request.query.get("dc", "")
    if datacenter not in ("", views.DATACENTER):
        raise web.HTTPInternalServerError(text=f"No path to datacenter {datacenter!r}")
    text = request.query.get("index", "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BadRequest("Invalid index")
    wait = request.query.get("wait", "")
    try:
        wait_s = parse_duration_s(wait) if wait else _DEFAULT_WAIT_S
    except BadRequest:
        raise BadRequest("Invalid wait time") from None
    return int(text), min(wait_s, _MAX_WAIT_S)


def flag(request: web.Request, name: str) -> bool:
    """A boolean of a query: `?name` and `?name=true`. Raises `BadRequest` for other values."""
    text = request.query.get(name)
    if text is None:
        return False
    value = parse_bool(text or "true")
    if value is None:
        raise BadRequest(f"Invalid value for ?{name}")
    return value


@web.middleware
async def unknown_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say what answers here to who takes it for a proxy; in plain text, as Consul's errors are."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(
            status=404,
            text=f"404 page not found: {request.path}; this is a registry, with the part of "
            "Consul's API that Fingerpost uses: ask a proxy, or give consul://HOST:PORT",
        )


@web.middleware
async def bad_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        return web.Response(status=400, text=str(error))


async def whole_body(request: web.Request) -> bytes:
    """The whole body, which is short. Raises `BadRequest` if it takes too long."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {_BODY_S:g} s") from None
