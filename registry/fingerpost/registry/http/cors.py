"""Lets web pages of named origins use a server from their scripts, by the rules of CORS.

A browser hides an answer from a page of another origin, and does not send most requests at all,
unless the server says that the page may (https://fetch.spec.whatwg.org/#http-cors-protocol). What
a page may do is no more than what any other client may: it gets no cookie and no certificate of
its reader. `aiohttp-cors` was rejected: it wants each route and each method to be named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from fingerpost.errors import Unauthorized
from fingerpost.registry.http.app import error_response
from fingerpost.registry.http.cors_config import ANY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.registry.http.app import Handler
    from fingerpost.registry.http.cors_config import CorsConfig

__all__ = ["allow_pages"]

# What a page may send beside what every page may, and read.
_SENT: Final = (
    "Authorization, Content-Type, Fingerpost-Boot-Id, Fingerpost-Class, Fingerpost-Deadline-Ms, "
    "Fingerpost-Model, Fingerpost-Suspect, Fingerpost-Waited-Ms, If-None-Match, "
    "Inference-Header-Content-Length, Traceparent, Tracestate"
)
_READ: Final = (
    "ETag, Endpoint-Load-Metrics, Fingerpost-Hold-S, Fingerpost-Index, Fingerpost-Worker, "
    "Inference-Header-Content-Length, Location, Retry-After"
)
_METHODS: Final = "GET, HEAD, POST"
# How long a browser asks no more; Chromium's most is two hours.
_MAX_AGE_S: Final = 7200


def allow_pages(app: web.Application, config: CorsConfig, closed: Sequence[str] = ()) -> None:
    """Answer the questions of browsers, and name the page in every answer of an application.

    Args:
        app: gets both.
        config: which pages.
        closed: paths that are for no page, with all that is below them: there a browser is refused,
            and no answer names a page.
    """
    if not config.allow_origins:
        return
    every = ANY in config.allow_origins

    def is_closed(request: web.Request) -> bool:
        path = request.path
        # Not at its start alone: `/instance/BOOT_ID/MODEL` may stand before.
        return any(f"{each}/" in f"{path}/" for each in closed)

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if request.method != hdrs.METH_OPTIONS or asked is None:
            return await handler(request)
        if is_closed(request):
            return error_response(
                Unauthorized(
                    f"{request.path[:200]} is for no page of another origin: use a program, such "
                    "as curl or the fingerpost command"
                )
            )
        if not config.allows(request.headers):
            return web.Response(status=204)
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _SENT,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(_MAX_AGE_S),
            },
        )

    async def name_page(request: web.Request, response: web.StreamResponse) -> None:
        if not every:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if config.allows(request.headers) and not is_closed(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = (
                ANY if every else request.headers[hdrs.ORIGIN]
            )
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READ

    app.middlewares.insert(0, preflight)
    app.on_response_prepare.append(name_page)
