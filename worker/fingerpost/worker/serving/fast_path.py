"""The fast path: some requests go past the router and the middlewares.

Those are images whose path was answered before, and `GET /load`, which each client sends twice for
an image.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, cast

from aiohttp import HttpVersion11, hdrs, web

from fingerpost.client.wire import BOOT_ID_HEADER
from fingerpost.registry import LOAD_HEADER
from fingerpost.registry.http.response import date_and_server

if TYPE_CHECKING:
    from fingerpost.registry import LoadReport, ModelReference
    from fingerpost.registry.http.context import PlainHandler
    from fingerpost.registry.http.request import PlainRequest
    from fingerpost.registry.http.request_head import RequestHead

__all__ = ["Answer", "FastPath", "json_body"]

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

    def __init__(self, load: Callable[[RequestHead], LoadReport], *, pages: bool = False) -> None:
        self._load = load
        self._pages = pages
        self._handlers: dict[str, PlainHandler] = {}
        self._reads: dict[str, Callable[[PlainRequest], tuple[bytes, LoadReport]]] = {}

    def find(self, request: PlainRequest) -> PlainHandler | bytes | None:
        """The handler of a remembered path, or the response of an added one, with a load report.

        None where the application has more to do.
        """
        method, headers = request.method, request.headers
        if hdrs.EXPECT in headers or (self._pages and hdrs.ORIGIN in headers):
            return None
        if method == hdrs.METH_POST:
            return self._handlers.get(request.path)
        if method == hdrs.METH_GET and BOOT_ID_HEADER not in headers and _is_plain(request):
            read = self._reads.get(request.raw_path)
            if read is not None and not request.content_length:
                body, report = read(request)
                return _response(body, report.to_header())
        return None

    def add(self, path: str, answer: Callable[[PlainRequest], tuple[bytes, LoadReport]]) -> None:
        """Answer `GET path` without the application; the path has no query.

        Args:
            answer: makes the JSON, and the load report of the header.
        """
        self._reads[path] = answer

    def remember(
        self,
        request: web.Request,
        reference: ModelReference,
        answer: Callable[[PlainRequest, ModelReference], Awaitable[Answer]],
    ) -> None:
        """Let later requests for the path of this one, which had success, go past the router.

        Args:
            reference: the model that the path names.
            answer: answers a request for it, with bytes or a response whose body is bytes.
        """
        path = request.raw_path.partition("?")[0]
        if not path.startswith("/") or "%" in path or "#" in path:
            return  # another spelling of a path

        async def handler(request: PlainRequest) -> bytes | web.Response:
            found = await answer(request, reference)
            load = self._load(request).to_header()
            if isinstance(found, bytes):
                if _is_plain(request):
                    return _response(found, load)
                found = json_body(found)
            found.headers[LOAD_HEADER] = load
            return cast("web.Response", found)

        if len(self._handlers) >= _MAX_PATHS:
            self._handlers.clear()
        self._handlers[path] = handler


def _is_plain(request: PlainRequest) -> bool:
    """Whether nothing is to be said of the connection: it is HTTP/1.1 and stays open."""
    return request.keep_alive and request.version == HttpVersion11


def _response(body: bytes, load: str) -> bytes:
    """A 200 with JSON and a load report, as it goes to a plain request."""
    return _HEAD % (date_and_server(int(time.time())).encode(), load.encode(), len(body), body)


_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\n"
    + LOAD_HEADER.encode()
    + b": %b\r\nContent-Length: %d\r\n\r\n%b"
)


def json_body(body: bytes) -> web.Response:
    """A 200 with a body that is JSON already."""
    return web.Response(body=body, content_type="application/json")
