"""At the door: which requests are let in, judged by their headers, and counted until they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, hdrs, web

from fingerpost.client.wire import DEADLINE_HEADER
from fingerpost.errors import (
    DeadlineExceeded,
    Draining,
    FingerpostError,
    InvalidRequest,
    Overloaded,
)
from fingerpost.registry import LOAD_HEADER, ModelReference, WorkerState
from fingerpost.worker.serving.errors import response_for
from fingerpost.worker.serving.server import FastJsonResponse
from fingerpost.worker.serving.uploads import check_headers

if TYPE_CHECKING:
    from fingerpost.registry import LoadReport
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.telemetry.observer import Observer
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["PATIENCE_S", "Admission", "Admitted", "Answer", "Check", "Work", "deadline_s"]

logger = logging.getLogger(__name__)

# What a request without a deadline gets, in seconds.
PATIENCE_S: Final = 600.0

# Far above the models, versions and aliases that one worker has.
_MAX_SHORTCUTS: Final = 1024
_FAULT: Final = "this server has a fault: see its log"

_parse: Final = lru_cache(maxsize=256)(ModelReference.parse)


class Admitted:
    """A request that was let in: the version it uses, and its deadline by the loop's clock."""

    __slots__ = ("deadline", "served")

    def __init__(self, served: ServedVersion, deadline: float) -> None:
        self.served = served
        self.deadline = deadline


# Bytes are JSON, with status 200.
Answer = bytes | web.StreamResponse
Work = Callable[[web.Request, Admitted], Awaitable[Answer]]
Check = Callable[[web.Request], None]


class Admission:
    """Counts requests in flight, and refuses what can be refused by the headers.

    Args:
        observer: counts, logs and traces every request.
        load: makes this moment's load report.

    Attributes:
        rif: requests in flight, from their headers on; of streams, the images.
        refusing: a draining worker refuses new work only once no client can hold its address.
    """

    def __init__(
        self,
        manager: ModelManager,
        config: WorkerConfig,
        observer: Observer,
        load: Callable[[], LoadReport],
    ) -> None:
        self._manager = manager
        self._load = load
        self._config = config
        self._max_in_flight = config.requests.max_in_flight
        self._observer = observer
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[Callable[[], object]] = set()
        self._shortcuts: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self._state = WorkerState.STARTING
        self.rif = 0
        self.refusing = False

    @property
    def state(self) -> WorkerState:
        """Set by the worker; streams end when it begins to drain, whoever sends may go on."""
        return self._state

    @state.setter
    def state(self, state: WorkerState) -> None:
        self._state = state
        if state is WorkerState.DRAINING:
            for end in tuple(self._streams):
                end()

    def post(
        self, app: web.Application, path: str, work: Work, *, check: Check | None = None
    ) -> None:
        """Add a route whose requests are judged before a client is told to send its body.

        Args:
            path: the route; its `model`, `version` and `alias` say what is asked for.
            work: answers an admitted request within its deadline.
            check: refuses by the headers; by default `check_headers`, for bodies of images.
        """
        judged = check or self._check_images

        async def answer(
            request: web.Request, reference: ModelReference, record: RequestRecord
        ) -> Answer:
            with self._manager.acquire(reference) as served:
                record.served_by(served.model, served.version)
                left_s = self._admit(request, served, judged)
                deadline = asyncio.get_running_loop().time() + left_s
                self._enter()
                try:
                    if left_s >= PATIENCE_S:  # nobody set one: the engine's own bound is enough
                        return await work(request, Admitted(served, deadline))
                    try:
                        async with asyncio.timeout_at(deadline):
                            return await work(request, Admitted(served, deadline))
                    except TimeoutError:
                        raise DeadlineExceeded(
                            "the deadline passed while the image was here"
                        ) from None
                finally:
                    self._leave()

        self._add(app, path, answer, judged)

    def stream(
        self,
        app: web.Application,
        path: str,
        work: Callable[[web.Request, RequestRecord], Awaitable[web.StreamResponse]],
        *,
        check: Check,
    ) -> None:
        """Add a route whose requests last, and whose images are counted one by one: `count`."""

        async def answer(
            request: web.Request, reference: ModelReference, record: RequestRecord
        ) -> Answer:
            with self._manager.acquire(reference) as served:
                self._admit(request, served, check)
            if len(self._streams) >= self._max_in_flight:
                raise Overloaded(
                    f"{len(self._streams)} streams are open here already: use another worker",
                    retry_after_s=1.0,
                )
            return await work(request, record)

        self._add(app, path, answer, check)

    def shortcut(self, request: web.Request) -> Awaitable[web.StreamResponse] | None:
        """What answers a request to a path that was answered before, past the router; else None.

        With the load report on it, as the application's middleware puts it on all others.
        """
        if request.method != hdrs.METH_POST:
            return None
        serve = self._shortcuts.get(request.raw_path.partition("?")[0])
        if serve is None or hdrs.EXPECT in request.headers:
            return None
        return serve(request)

    def _add(
        self,
        app: web.Application,
        path: str,
        answer: Callable[[web.Request, ModelReference, RequestRecord], Awaitable[Answer]],
        check: Check,
    ) -> None:
        async def observed(request: web.Request, reference: ModelReference | None = None) -> Answer:
            with self._observer.request(request) as record:
                try:
                    found = await answer(request, reference or self.reference(request), record)
                except FingerpostError as error:
                    record.failed(error)
                    return response_for(request, error)
                except ConnectionError:  # the client went away: nobody will read this
                    record.status = 499
                    return web.Response(status=499)
                except web.HTTPException:
                    raise
                except Exception:
                    logger.exception("%s %s failed", request.method, request.path)
                    return response_for(request, FingerpostError(_FAULT))
                record.status = 200 if isinstance(found, bytes) else found.status
                return found

        async def handler(request: web.Request) -> web.StreamResponse:
            found = await observed(request)
            if isinstance(found, bytes):
                self._remember(request, observed)
                return web.Response(body=found, content_type="application/json")
            return found

        async def expect(request: web.Request) -> web.StreamResponse | None:
            """Answer `Expect: 100-continue`: an error at once, or 'go on'."""
            try:
                if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                    raise InvalidRequest("Expect: only 100-continue is known")
                self.admit(request, check)
            except FingerpostError as error:
                self._observer.refused(request, error)
                response = response_for(request, error)
                response.headers[LOAD_HEADER] = self._load().to_header()
                response.force_close()  # the body will not be read
                return response
            if request.transport is not None:  # else the client went away already
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None

        app.router.add_post(path, handler, expect_handler=expect)

    def _remember(
        self,
        request: web.Request,
        observed: Callable[[web.Request, ModelReference], Awaitable[Answer]],
    ) -> None:
        """Make a shortcut to a path that was answered with success, so only to what is served."""
        path = request.raw_path.partition("?")[0]
        if not path.startswith("/") or "%" in path or "#" in path:
            return  # another spelling of a path
        if "model" not in request.match_info:
            return  # the default, which may change
        reference = self.reference(request)

        async def serve(request: web.Request) -> web.StreamResponse:
            found = await observed(request, reference)
            load = self._load().to_header()
            if isinstance(found, bytes):
                if request.keep_alive and request.version == HttpVersion11:
                    return FastJsonResponse(request, found, load)
                found = web.Response(body=found, content_type="application/json")
            if not found.prepared:
                found.headers[LOAD_HEADER] = load
            return found

        if len(self._shortcuts) >= _MAX_SHORTCUTS:
            self._shortcuts.clear()
        self._shortcuts[path] = serve

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False where the time did not suffice."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def admit(self, request: web.Request, check: Check) -> float:
        """Refuse what can be refused by the headers; return the seconds the caller still waits.

        Raises:
            Draining, Overloaded, DeadlineExceeded, UnknownModel, ImageTooLarge, InvalidRequest,
            UnsupportedImage.
        """
        with self._manager.acquire(self.reference(request)) as served:
            return self._admit(request, served, check)

    def _admit(self, request: web.Request, served: ServedVersion, check: Check) -> float:
        if self.refusing:
            raise Draining("this worker is leaving: use another one")
        left_s = deadline_s(request)
        if left_s is None:
            left_s = PATIENCE_S
        elif left_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        check(request)
        if self.rif >= self._max_in_flight:
            raise Overloaded(
                f"{self.rif} requests are in flight here already: use another worker, "
                "or try again in a second",
                retry_after_s=1.0,
            )
        served.engine.admit(left_s)
        return left_s

    def reference(self, request: web.Request) -> ModelReference:
        """The model that a request's path names (`model`, `version` and `alias` of its route).

        Raises:
            InvalidName: something that cannot be one.
        """
        info = request.match_info
        model = info.get("model") or self._manager.default
        wanted = info.get("version") or info.get("alias")
        found = _parse(f"{model}@{wanted}" if wanted else model)
        if ("version" in info and not found.version) or ("alias" in info and not found.alias):
            raise InvalidRequest(
                f"{request.path}: after /versions/ goes a number, after /labels/ an alias"
            )
        return found

    @contextlib.contextmanager
    def count(self) -> Iterator[None]:
        """One more in flight, until the end whatever happens."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def streaming(self, end: Callable[[], object]) -> Iterator[None]:
        """A stream is open; `end` is called, once or more, when this worker drains."""
        self._streams.add(end)
        self._idle.clear()
        if self._state is WorkerState.DRAINING:
            end()
        try:
            yield
        finally:
            self._streams.discard(end)
            self._rest()

    def classified(self, model: str, images: int) -> None:
        """So many images have their scores."""
        self._observer.metrics.of(model).images.inc(images)

    def _enter(self) -> None:
        if not self.rif:
            self._idle.clear()
        self.rif += 1

    def _leave(self) -> None:
        self.rif -= 1
        self._rest()

    def _rest(self) -> None:
        if not self.rif and not self._streams:
            self._idle.set()

    def _check_images(self, request: web.Request) -> None:
        check_headers(request, self._config)


def deadline_s(request: web.Request) -> float | None:
    """Seconds the caller still waits; None where it does not say. Raises `InvalidRequest`."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        left_ms = float(text)
    except ValueError:
        left_ms = math.nan
    if not math.isfinite(left_ms):
        raise InvalidRequest(f"{DEADLINE_HEADER}: {text!r} is no number of milliseconds")
    return left_ms / 1000
