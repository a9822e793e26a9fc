"""A sidecar in front of its server: passes every request on, and counts those in flight."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import hdrs, web

from fingerpost.errors import Unreachable
from fingerpost.registry import LOAD_HEADER, LoadReport, WorkerState
from fingerpost.registry.http.app import bind, error_response, json_response, serve
from fingerpost.registry.instance import format_address

if TYPE_CHECKING:
    from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["Front", "LoadPoint"]

logger = logging.getLogger(__name__)

# Of a connection, not of a message (RFC 9110, 7.6.1); aiohttp writes its own framing.
_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade", "content-length"}
)  # fmt: skip
_PIECE_BYTES: Final = 1 << 16
_CONNECT_S: Final = 2.0
_MOST_BYTES: Final = 1 << 40


class LoadPoint:
    """Answers `GET /load` with the load of the server beside it.

    Args:
        count: how many requests the server has now.
        slots: see `SidecarConfig.slots`.

    Attributes:
        state: reported with it.
    """

    def __init__(self, count: Callable[[], int], slots: int) -> None:
        self._count = count
        self._slots = slots
        self._boot_id = random.getrandbits(52) | 1
        self._reports = 0
        self._runner: web.AppRunner | None = None
        self.state = WorkerState.READY

    def report(self) -> LoadReport:
        """The load now."""
        self._reports += 1
        return LoadReport(
            rif=self._count(),
            slots=self._slots,
            state=self.state,
            boot_id=self._boot_id,
            seq=self._reports,
        )

    def app(self) -> web.Application:
        """The application that answers."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_get("/load", self._get_load)
        return app

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises `ConfigurationError` where it is in use."""
        listener = bind(host, port)
        self._runner = web.AppRunner(
            self.app(), access_log=None, handler_cancellation=True, auto_decompress=False
        )
        await self._runner.setup()
        await serve(self._runner, listener)
        return int(listener.getsockname()[1])

    async def aclose(self) -> None:
        """Close the connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get_load(self, request: web.Request) -> web.Response:
        return json_response(self.report())


class Front(LoadPoint):
    """Passes every request on to the server, bodies in pieces, and its answer back.

    The path `/load` is its own. Every answer carries the load report in `endpoint-load-metrics`.

    Args:
        host, port: of the server.
        slots: see `SidecarConfig.slots`.

    Attributes:
        in_flight: requests that the server has.
    """

    def __init__(self, host: str, port: int, slots: int) -> None:
        super().__init__(lambda: self.in_flight, slots)
        self._server = f"http://{format_address(host, port)}"
        self._session: aiohttp.ClientSession | None = None
        self.in_flight = 0
        self._ended = asyncio.Condition()

    async def idle(self) -> None:
        """Return once no request is in flight."""
        async with self._ended:
            await self._ended.wait_for(lambda: not self.in_flight)

    def app(self) -> web.Application:
        """See `LoadPoint.app`."""
        app = super().app()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        return app

    async def aclose(self) -> None:
        """See `LoadPoint.aclose`."""
        await super().aclose()
        if self._session is not None:
            await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        self.in_flight += 1
        response: web.StreamResponse | None = None
        try:
            headers = _kept(request.headers)
            if request.content_length is not None:  # many servers take no chunks
                headers[hdrs.CONTENT_LENGTH] = str(request.content_length)
            asked = self._session.request(
                request.method,
                f"{self._server}{request.raw_path}",
                headers=headers,
                data=request.content.iter_any() if request.can_read_body else None,
                allow_redirects=False,
            )
            async with asked as answer:
                response = web.StreamResponse(
                    status=answer.status, reason=answer.reason, headers=_kept(answer.headers)
                )
                if answer.content_length is not None:
                    response.content_length = answer.content_length
                response.headers[LOAD_HEADER] = self.report().to_header()
                await response.prepare(request)
                async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                    await response.write(piece)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, OSError) as error:
            if response is not None and response.prepared:
                raise  # the client sees an answer that breaks off
            return error_response(Unreachable(f"{self._server}: {error or type(error).__name__}"))
        finally:
            self.in_flight -= 1
            async with self._ended:
                self._ended.notify_all()


def _kept(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = headers.copy()
    named = {each.strip().lower() for each in headers.get(hdrs.CONNECTION, "").split(",")}
    for name in {*kept}:
        if name.lower() in _HOP or name.lower() in named:
            del kept[name]
    return kept
