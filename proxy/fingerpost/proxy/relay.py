"""Sends requests on to workers, for clients that cannot reach the workers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, hdrs, web

from fingerpost.client.wire import DEADLINE_HEADER, WORKER_HEADER
from fingerpost.errors import NoWorker, Unreachable
from fingerpost.registry import LOAD_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.registry import Instance

__all__ = ["Relay"]

_FORWARDED: Final = (
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_LENGTH,
    hdrs.CONTENT_ENCODING,
    DEADLINE_HEADER,
    "traceparent",
)
_RETURNED: Final = (hdrs.CONTENT_TYPE, hdrs.RETRY_AFTER, LOAD_HEADER)
# Workers to try. Only a connection that was never made is tried again elsewhere, because then no
# byte of the body has been used.
_ATTEMPTS: Final = 3


class Relay:
    """Streams request bodies to workers without buffering them."""

    def __init__(self, metrics: ProxyMetrics) -> None:
        self._metrics = metrics
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Relay:
        timeout = ClientTimeout(total=None, sock_connect=1.0, sock_read=60.0)
        self._session = ClientSession(
            connector=TCPConnector(limit=0), timeout=timeout, auto_decompress=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def forward(
        self, request: web.Request, path_qs: str, workers: Iterable[Instance]
    ) -> web.Response:
        """Send the request's body to the first worker that accepts it, and return its answer.

        Args:
            request: the client's request; its body is read as it is sent on.
            path_qs: path and query at the worker.
            workers: the workers to try, in this order.

        Raises:
            Unreachable: the connection broke after part of the body, which cannot be sent again.
            NoWorker: none of the first three workers accepted a connection.
        """
        assert self._session is not None  # noqa: S101 - set by the start
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        sent = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            async for chunk in request.content.iter_any():
                sent += len(chunk)
                self._metrics.body_bytes.inc(len(chunk))
                self._metrics.relayed_bytes.inc(len(chunk))
                yield chunk

        tried = []
        for worker, _ in zip(workers, range(_ATTEMPTS), strict=False):
            tried.append(worker.address)
            try:
                async with self._session.post(
                    f"{worker.url}{path_qs}", data=body(), headers=headers
                ) as response:
                    answer = await response.read()
            except (TimeoutError, ClientError) as error:
                if sent:
                    raise Unreachable(
                        f"worker {worker.address} closed the connection after {sent:,} bytes: send "
                        "the image again"
                    ) from error
                continue
            self._metrics.relayed.labels(str(response.status)).inc()
            back = {name: response.headers[name] for name in _RETURNED if name in response.headers}
            back[WORKER_HEADER] = f"{worker.id} {worker.address}"
            return web.Response(body=answer, status=response.status, headers=back)
        raise NoWorker(
            f"no worker accepted a connection (tried {', '.join(tried)}): try again",
            retry_after_s=1.0,
        )
