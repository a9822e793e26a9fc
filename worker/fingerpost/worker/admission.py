"""At the door: which requests are let in, judged by their headers, and counted until they end."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from fingerpost.client.wire import DEADLINE_HEADER
from fingerpost.registry import (
    LOAD_HEADER,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    InvalidRequest,
    ModelReference,
    Overloaded,
    WorkerState,
)
from fingerpost.registry.web import error_response
from fingerpost.worker.uploads import check_headers

if TYPE_CHECKING:
    from fingerpost.registry import LoadReport
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.host import ModelHost, ServedVersion
    from fingerpost.worker.metrics import WorkerMetrics

__all__ = ["Admission", "Admitted", "ErrorForm", "Work"]


class Admitted:
    """A request that was let in: the version it uses, and its deadline by the loop's clock."""

    __slots__ = ("deadline", "served")

    def __init__(self, served: ServedVersion, deadline: float) -> None:
        self.served = served
        self.deadline = deadline


Work = Callable[[web.Request, Admitted], Awaitable[web.StreamResponse]]
ErrorForm = Callable[[FingerpostError], web.Response]


class Admission:
    """Counts requests in flight, and refuses what can be refused by the headers.

    Args:
        load: makes this moment's load report.

    Attributes:
        rif: requests in flight, from their headers on.
        state: set by the worker.
        refusing: a draining worker refuses new work only once no client can hold its address.
    """

    def __init__(
        self,
        host: ModelHost,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        load: Callable[[], LoadReport],
    ) -> None:
        self._host = host
        self._load = load
        self._config = config
        self._metrics = metrics
        self._idle = asyncio.Event()
        self._idle.set()
        self.rif = 0
        self.state = WorkerState.STARTING
        self.refusing = False

    def post(
        self,
        app: web.Application,
        path: str,
        work: Work,
        *,
        error_form: ErrorForm = error_response,
    ) -> None:
        """Add a route whose requests are judged before a client is told to send its body.

        Args:
            path: the route; its `model`, `version` and `label` say what is asked for.
            work: answers an admitted request within its deadline.
            error_form: how the route's protocol writes errors.
        """

        async def handler(request: web.Request) -> web.StreamResponse:
            status = 500
            try:
                with self.admit(request) as admitted:
                    async with asyncio.timeout_at(admitted.deadline):
                        response = await work(request, admitted)
                status = response.status
            except TimeoutError:
                status = DeadlineExceeded.status
                return error_form(DeadlineExceeded("the deadline passed while the image was here"))
            except FingerpostError as error:
                status = error.status
                return error_form(error)
            except asyncio.CancelledError:
                status = 499  # the client went away
                raise
            finally:
                self._metrics.requests.labels(str(status)).inc()
            return response

        async def expect(request: web.Request) -> web.StreamResponse | None:
            """Answer `Expect: 100-continue`: an error at once, or 'go on'."""
            if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                return error_form(InvalidRequest("Expect: only 100-continue is known"))
            try:
                self.judge(request)
            except FingerpostError as error:
                self._metrics.requests.labels(str(error.status)).inc()
                response = error_form(error)
                response.headers[LOAD_HEADER] = self._load().to_header()
                response.force_close()  # the body will not be read
                return response
            assert request.transport is not None  # noqa: S101 - it is there until the response is
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None

        app.router.add_post(path, handler, expect_handler=expect)

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False where the time did not suffice."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def judge(self, request: web.Request) -> float:
        """Refuse what can be refused by the headers; return the seconds the caller still waits.

        Raises:
            Draining, Overloaded, DeadlineExceeded, UnknownModel, ImageTooLarge, InvalidRequest,
            UnsupportedImage.
        """
        if self.refusing:
            raise Draining("this worker is leaving: use another one")
        with self._host.use(self.reference(request)):
            pass
        left_s = _deadline_s(request)
        if left_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        check_headers(request, self._config)
        if self.rif >= self._config.max_in_flight:
            raise Overloaded(
                f"{self.rif} requests are in flight here already: use another worker, "
                "or try again in a second",
                retry_after_s=1.0,
            )
        return left_s

    def reference(self, request: web.Request) -> ModelReference:
        """The model that a request's path names (`model`, `version` and `label` of its route)."""
        info = request.match_info
        found = ModelReference.parse(info.get("model") or self._host.default)
        if "version" in info:
            return ModelReference.parse(f"{found.model}@{info['version']}")
        if "label" in info:
            return ModelReference.parse(f"{found.model}@{info['label']}")
        return found

    @contextlib.contextmanager
    def admit(self, request: web.Request) -> Iterator[Admitted]:
        """Judge, count in flight until the end whatever happens, and hold the model's version."""
        left_s = self.judge(request)
        self.rif += 1
        self._idle.clear()
        try:
            with self._host.use(self.reference(request)) as served:
                loop = asyncio.get_running_loop()
                yield Admitted(served, loop.time() + left_s)
        finally:
            self.rif -= 1
            if not self.rif:
                self._idle.set()


def _deadline_s(request: web.Request) -> float:
    """Seconds the caller still waits; without a header, ten minutes."""
    text = request.headers.get(DEADLINE_HEADER, "600000")
    try:
        left_ms = float(text)
    except ValueError:
        left_ms = math.nan
    if not math.isfinite(left_ms):
        raise InvalidRequest(f"{DEADLINE_HEADER}: {text!r} is no number of milliseconds")
    return left_ms / 1000
