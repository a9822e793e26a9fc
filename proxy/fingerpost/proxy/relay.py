"""Sends requests on to workers, for clients that cannot reach the workers themselves.

A worker may be anybody's server, and its answer goes to a client that trusts the proxy. So nothing
in it makes the proxy do anything else (see `PeerSession`), and only the answers of the protocol are
passed on: no redirect, no other content than JSON or plain text, no cookie.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from aiohttp import ClientError, ClientTimeout, hdrs, web

from fingerpost.client.tasks.wire import HEADER_LENGTH
from fingerpost.client.wire import (
    BOOT_ID_HEADER,
    CLASS_HEADER,
    DEADLINE_HEADER,
    SUSPECT_HEADER,
    WAITED_HEADER,
    WORKER_HEADER,
)
from fingerpost.errors import (
    BadAnswer,
    DeadlineExceeded,
    Misdirected,
    NoWorker,
    TlsFailed,
    Unreachable,
)
from fingerpost.errors.retry_after import read_retry_after
from fingerpost.proxy.relayed_body import RelayedBody
from fingerpost.proxy.silence import SilenceChecks
from fingerpost.registry import LOAD_HEADER
from fingerpost.registry.http.app import error_response
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp import ClientResponse

    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.metrics import ProxyMetrics
    from fingerpost.registry import Instance

__all__ = ["Relay"]

_FORWARDED: Final = (
    hdrs.ACCEPT,
    hdrs.CONTENT_TYPE,
    hdrs.CONTENT_LENGTH,
    hdrs.CONTENT_ENCODING,
    CLASS_HEADER,
    DEADLINE_HEADER,
    WAITED_HEADER,
    SUSPECT_HEADER,
    HEADER_LENGTH,
    "traceparent",
)
_RETURNED: Final = (LOAD_HEADER, HEADER_LENGTH)
_CONTENT_TYPES: Final = frozenset({"application/json", "text/plain"})
# Workers to try. Only a connection that was never made is tried again elsewhere, because then no
# byte of the body has been used.
_ATTEMPTS: Final = 3
_KEEP_ALIVE_S: Final = 15.0
# A request without a deadline ends after this, and one with a longer deadline as well.
_LONGEST_S: Final = 600.0
# A worker says itself that the deadline has passed, and its answer needs some time to get here.
_LATE_S: Final = 0.5
# An image's answer has some 300 bytes with five labels. A request may have thousands of images, so
# this is their answers; one relay holds as much at most.
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


class Relay:
    """Streams request bodies to workers without buffering them.

    Args:
        config: the proxy's settings, of which those for bodies and answers are used.
        metrics: the proxy's metrics.
        leave_out: called with an instance whose address another process has now.

    Attributes:
        in_flight: requests that are relayed now.
    """

    def __init__(
        self,
        config: ProxyConfig,
        metrics: ProxyMetrics,
        leave_out: Callable[[Instance], None],
    ) -> None:
        self._config = config
        self.in_flight = 0
        self._tls = ClientTls(config.tls)
        self._silence = SilenceChecks(config.response_timeout_s, self._tls)
        self._metrics = metrics
        self._leave_out = leave_out
        self._session = PeerSession(max_bytes=_MAX_ANSWER_BYTES, keep_alive_s=_KEEP_ALIVE_S)

    async def __aenter__(self) -> Relay:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.aclose()
        await self._silence.aclose()

    async def forward(
        self, request: web.Request, path_qs: str, workers: Iterable[Instance], lease: str = ""
    ) -> web.Response:
        """`_forward`, counted in `in_flight`."""
        self.in_flight += 1
        try:
            return await self._forward(request, path_qs, workers, lease)
        finally:
            self.in_flight -= 1

    async def _forward(
        self, request: web.Request, path_qs: str, workers: Iterable[Instance], lease: str
    ) -> web.Response:
        """Send the request's body to the first worker that accepts it, and return its answer.

        Where a worker had the whole body and then broke off or said nothing, the answer is 503
        `unreachable` that names the worker: clients mark the image as suspect.

        Args:
            request: the client's request; its body is read as it is sent on.
            path_qs: path and query at the worker.
            workers: the workers to try, in this order.
            lease: the caller's right to use them; empty where the proxy signs none.

        Raises:
            InvalidRequest: the body stalls, or is too slow.
            Unreachable: the connection broke after part of the body, which cannot be sent again.
            Misdirected: the worker's address is another process's now, and the body was used.
            BadAnswer: a worker answered something that is not passed on, such as a redirect.
            TlsFailed: no worker had a certificate that is accepted.
            DeadlineExceeded: no answer within the request's deadline, or 600 s.
            NoWorker: none of the first three workers accepted a connection.
        """
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        body = RelayedBody(request, self._config, self._metrics)
        tried = []
        refused: BadAnswer | Misdirected | TlsFailed | None = None
        limit_s = _limit_s(request)
        try:
            async with asyncio.timeout(limit_s):
                for worker, _ in zip(workers, range(_ATTEMPTS), strict=False):
                    tried.append(worker.address)
                    try:
                        return await self._post(worker, path_qs, body, headers, lease)
                    except (BadAnswer, Misdirected, TlsFailed) as error:
                        refused = error
                        if body.sent:
                            raise
                    except Unreachable as error:  # it is silent
                        return _silent(worker, body, error)
                    except (ClientError, OSError, ValueError) as error:
                        if body.refusal is not None:
                            raise body.refusal from error
                        bad = peer_error(error, worker.address)
                        if isinstance(bad, BadAnswer | TlsFailed):
                            refused = bad
                        if body.sent and refused is None:
                            return _silent(worker, body, _broken(worker, body.sent))
                        if body.sent and refused is not None:
                            raise refused from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"worker {tried[-1] if tried else '?'} did not answer within {limit_s:g} s"
            ) from error
        raise refused or NoWorker(
            f"no worker accepted a connection (tried {', '.join(tried)}): try again",
            retry_after_s=1.0,
        )

    async def _post(
        self,
        worker: Instance,
        path_qs: str,
        body: RelayedBody,
        headers: dict[str, str],
        lease: str,
    ) -> web.Response:
        if worker.foreign:  # its host name is checked, and it gets nothing that is ours
            tls = self._tls.for_host() if worker.speaks_tls else None
        else:
            tls = self._tls.for_worker(
                worker.service, speaks_tls=worker.speaks_tls, peer=worker.address
            )
            if lease:  # never what the client sent: that is for this proxy
                headers = headers | {hdrs.AUTHORIZATION: f"Bearer {lease}"}
        if worker.boot_id:
            headers = headers | {BOOT_ID_HEADER: str(worker.boot_id)}
        async with (
            self._silence.watch(worker, body),
            self._session.request(
                "POST",
                f"{worker.url}{path_qs}",
                data=body.pieces(),
                headers=headers,
                timeout=_TIMEOUT,
                tls=tls,
            ) as response,
        ):
            _check_status(response, worker)
            if response.status == Misdirected.status and not worker.foreign:
                self._leave_out(worker)
                raise Misdirected(
                    f"another process has the address of worker {worker.id} now: send the image "
                    "again"
                )
            answer = await self._session.read(response, f"worker {worker.address}")
        self._metrics.relayed.labels(str(response.status)).inc()
        back = {name: response.headers[name] for name in _RETURNED if name in response.headers}
        back[WORKER_HEADER] = _name(worker)
        kind = response.content_type
        back[hdrs.CONTENT_TYPE] = kind if kind in _CONTENT_TYPES else "application/octet-stream"
        back["X-Content-Type-Options"] = "nosniff"
        after_s = read_retry_after(response.headers.get(hdrs.RETRY_AFTER, ""), time.time())
        if after_s is not None:
            back[hdrs.RETRY_AFTER] = str(math.ceil(after_s))
        return web.Response(body=answer, status=response.status, headers=back)


_TIMEOUT: Final = ClientTimeout(total=None, sock_connect=1.0)


def _check_status(response: ClientResponse, worker: Instance) -> None:
    status = response.status
    if not (200 <= status < 300 or 400 <= status < 600):
        raise BadAnswer(
            f"worker {worker.address} answered HTTP {status}, which is not passed on: send the "
            "image to another one"
        )


def _limit_s(request: web.Request) -> float:
    """The seconds that the request may take: its deadline, if that is sooner than the longest."""
    left_ms = request.headers.get(DEADLINE_HEADER, "")
    if left_ms.isascii() and left_ms.isdigit() and len(left_ms) < 16:
        return min(_LONGEST_S, int(left_ms) / 1000 + _LATE_S)
    return _LONGEST_S


def _name(worker: Instance) -> str:
    return f"{worker.id} {worker.address}"


def _silent(worker: Instance, body: RelayedBody, error: Unreachable) -> web.Response:
    """The answer where a worker took part of the body, and then broke off or said nothing.

    It names the worker if that had the whole body: it may be what stopped it.
    """
    response = error_response(error)
    if body.whole:
        response.headers[WORKER_HEADER] = _name(worker)
    return response


def _broken(worker: Instance, sent_bytes: int) -> Unreachable:
    return Unreachable(
        f"worker {worker.address} closed the connection after {sent_bytes:,} bytes: send the "
        "image again"
    )
