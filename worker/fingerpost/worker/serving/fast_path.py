"""The fast path: some requests go past the router and the middlewares.

Those are images whose path was answered before, and `GET /load`, which each client sends twice for
an image. Measured on 20 KB bodies with a model that does nothing, aiohttp's router, middlewares and
general response take a fifth of a request's time; of `GET /load` they take half.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE

from fingerpost.client.wire import BOOT_ID_HEADER
from fingerpost.registry import LOAD_HEADER

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from fingerpost.registry import LoadReport, ModelReference

__all__ = ["Answer", "FastJsonResponse", "FastPath", "json_body"]

# Bytes are JSON, with status 200.
Answer = bytes | web.StreamResponse

# Far more than the models, versions and aliases of one worker.
_MAX_PATHS: Final = 1024


class FastPath:
    """Finds the handler of a path that was answered before, or that was added.

    Args:
        load: makes this moment's load report for the sender of a request, for every response.
        pages: whether web pages may ask, whose answers the application has to mark.
    """

    def __init__(self, load: Callable[[web.Request], LoadReport], *, pages: bool = False) -> None:
        self._load = load
        self._pages = pages
        self._handlers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self._reads: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}

    def handle(self, request: web.Request) -> Awaitable[web.StreamResponse] | None:
        """The response, with its load report, to a request for a remembered path; else None.

        None, too, where aiohttp has more to do, which is for the application.
        """
        method, headers = request.method, request.headers
        if method == hdrs.METH_POST:
            handler = self._handlers.get(request.raw_path.partition("?")[0])
        elif method == hdrs.METH_GET and BOOT_ID_HEADER not in headers and _is_plain(request):
            handler = self._reads.get(request.raw_path)
        else:
            return None
        if handler is None or hdrs.EXPECT in headers or (self._pages and hdrs.ORIGIN in headers):
            return None
        return handler(request)

    def add(self, path: str, answer: Callable[[web.Request], tuple[bytes, LoadReport]]) -> None:
        """Answer `GET path` without the application; the path has no query.

        Args:
            answer: makes the JSON, and the load report of the header.
        """

        async def handler(request: web.Request) -> web.StreamResponse:
            body, report = answer(request)
            return FastJsonResponse(request, body, report.to_header())

        self._reads[path] = handler

    def remember(
        self,
        request: web.Request,
        reference: ModelReference,
        answer: Callable[[web.Request, ModelReference], Awaitable[Answer]],
    ) -> None:
        """Let later requests for the path of this one, which had success, go past the router.

        Args:
            reference: the model that the path names.
            answer: answers a request for it.
        """
        path = request.raw_path.partition("?")[0]
        if not path.startswith("/") or "%" in path or "#" in path:
            return  # another spelling of a path

        async def handler(request: web.Request) -> web.StreamResponse:
            found = await answer(request, reference)
            load = self._load(request).to_header()
            if isinstance(found, bytes):
                if _is_plain(request):
                    return FastJsonResponse(request, found, load)
                found = json_body(found)
            if not found.prepared:
                found.headers[LOAD_HEADER] = load
            return found

        if len(self._handlers) >= _MAX_PATHS:
            self._handlers.clear()
        self._handlers[path] = handler


class FastJsonResponse(web.StreamResponse):
    """A 200 with JSON and a load report, whose head and body are one write.

    Only for HTTP/1.1 on a connection that stays open: see `_is_plain`.
    """

    def __init__(self, request: web.Request, body: bytes, load: str) -> None:
        super().__init__()
        self._writer = request.writer
        self._json = body
        self._load = load

    @property
    def keep_alive(self) -> bool:
        """True: the connection stays open after this response."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head is written with the body."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write head and body; wait while the client does not read."""
        body = self._json
        await self._writer.write_eof(
            b"%b%b\r\nContent-Length: %d\r\n\r\n%b"
            % (_head(int(time.time())), self._load.encode(), len(body), body)
        )


def _is_plain(request: web.Request) -> bool:
    """Whether a `FastJsonResponse` may answer it."""
    return request.keep_alive and request.version == HttpVersion11


def json_body(body: bytes) -> web.Response:
    """A 200 with a body that is JSON already."""
    return web.Response(body=body, content_type="application/json")


@lru_cache(maxsize=1)
def _head(second: int) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n{LOAD_HEADER}: "
    ).encode()
