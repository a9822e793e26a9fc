"""The worker's HTTP side: classify, load, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fingerpost.client.wire import DEADLINE_HEADER, ClassifyAnswer, ErrorBody, ImageAnswer
from fingerpost.registry import (
    LOAD_HEADER,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    InvalidRequest,
    LoadReport,
    ModelInfo,
    ModelReference,
    Overloaded,
    UnknownModel,
    WorkerState,
)
from fingerpost.registry.web import Handler, error_response, json_response, typed_errors
from fingerpost.worker.engine import best
from fingerpost.worker.uploads import check_headers, read_images

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine import Engine, Outcome
    from fingerpost.worker.metrics import WorkerMetrics

__all__ = ["WorkerService"]

_DEFAULT_TOP: Final = 5


class WorkerService:
    """Handlers around one engine. `state` is set from outside; `app` makes the routes.

    Args:
        engine: the model at work.
        model: its name, versions and labels as registered.
        labels: the class names, in the order of the scores.
        boot_id: this process's number, below 2**53.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        model: ModelInfo,
        labels: tuple[str, ...],
        boot_id: int,
        config: WorkerConfig,
        metrics: WorkerMetrics,
    ) -> None:
        self._engine = engine
        self._model = model
        self._labels = labels
        self._boot_id = boot_id
        self._config = config
        self._metrics = metrics
        self._seq = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.rif = 0
        self.state = WorkerState.STARTING
        # A draining worker refuses new work only once no client can hold its address any more.
        self.refusing = False

    def app(self) -> web.Application:
        """The routes; POST routes judge the headers before a client is told to send its body."""
        hint = "images go to POST /v1/classify/MODEL"
        app = web.Application(middlewares=[self._report_load, typed_errors(hint)])
        app.add_routes(
            [
                web.get("/load", self._get_load),
                web.get("/health/live", self._get_live),
                web.get("/health/engine", self._get_engine),
                web.get("/health/ready", self._get_ready),
                web.get("/metrics", self._get_metrics),
            ]
        )
        for path, handler in (
            ("/", self._post_root),
            ("/v1/classify/{model}", self._post_classify),
        ):
            app.router.add_post(path, handler, expect_handler=self._expect)
        return app

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False where the time did not suffice."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def engine_well(self) -> bool:
        """False while the model has been at one batch for longer than `stall_s`."""
        return self._engine.running_s() <= self._config.stall_s

    def load(self) -> LoadReport:
        """This moment's load report, newer than every one before it."""
        self._seq += 1
        return LoadReport(
            rif=self.rif,
            slots=self._config.max_batch,
            state=self.state,
            boot_id=self._boot_id,
            seq=self._seq,
            queued_cost=self._engine.queued_cost,
            latency_per_cost_s=self._engine.latency_per_cost_s,
        )

    @web.middleware
    async def _report_load(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Put the load report on every response."""
        response = await handler(request)
        response.headers[LOAD_HEADER] = self.load().to_header()
        return response

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer `Expect: 100-continue`: an error at once, or 'go on'."""
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return error_response(InvalidRequest("Expect: only 100-continue is known"))
        try:
            self._judge(request)
        except FingerpostError as error:
            self._metrics.requests.labels(str(error.status)).inc()
            response = error_response(error)
            response.headers[LOAD_HEADER] = self.load().to_header()
            response.force_close()  # the body will not be read
            return response
        assert request.transport is not None  # noqa: S101 - it is there until the response is
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _judge(self, request: web.Request) -> float:
        """Refuse what can be refused by the headers; return the seconds the caller still waits.

        Raises:
            Draining, Overloaded, DeadlineExceeded, UnknownModel, ImageTooLarge, InvalidRequest,
            UnsupportedImage.
        """
        if self.refusing:
            raise Draining(f"this worker of {self._model.name} is leaving: use another one")
        wanted = request.match_info.get("model")
        if wanted is not None and not self._model.serves(ModelReference.parse(wanted)):
            served = ", ".join(f"{self._model.name}@{each}" for each in self._model.versions)
            raise UnknownModel(f"{wanted!r} is not served here; this worker has {served}")
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

    async def _post_root(self, request: web.Request) -> web.Response:
        """`POST /`: one image in, `[[label, score], ...]` out."""
        return await self._admitted(request, self._classify_one)

    async def _post_classify(self, request: web.Request) -> web.Response:
        """`POST /v1/classify/{model}`: one image or several in, `ClassifyAnswer` out."""
        return await self._admitted(request, self._classify_all)

    async def _admitted(
        self, request: web.Request, work: Callable[[web.Request, int], Awaitable[object]]
    ) -> web.Response:
        """Judge the request, count it in flight whatever happens, and keep to its deadline."""
        status = 500
        try:
            left_s = self._judge(request)
            top = _top(request)
            with self._in_flight():
                async with asyncio.timeout(left_s):
                    answer = await work(request, top)
            status = 200
            return json_response(answer)
        except TimeoutError as error:
            status = DeadlineExceeded.status
            raise DeadlineExceeded("the deadline passed while the image was here") from error
        except FingerpostError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = 499  # the client went away
            raise
        finally:
            self._metrics.requests.labels(str(status)).inc()

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[None]:
        self.rif += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.rif -= 1
            if not self.rif:
                self._idle.set()

    async def _classify_one(self, request: web.Request, top: int) -> object:
        images = await self._read(request)
        if len(images) != 1:
            raise InvalidRequest(
                f"POST / takes one image, this body has {len(images)}: "
                "POST /v1/classify/MODEL takes several"
            )
        outcome = await self._engine.classify(images[0][1])
        self._metrics.images.inc()
        return best(outcome.scores, self._labels, top)

    async def _classify_all(self, request: web.Request, top: int) -> object:
        images = await self._read(request)
        if len(images) == 1:
            name, data = images[0]
            outcome = await self._engine.classify(data)
            results: tuple[ImageAnswer, ...] = (self._answer(name, outcome, top),)
        else:
            outcomes = await asyncio.gather(
                *(self._engine.classify(data) for _, data in images), return_exceptions=True
            )
            results = tuple(
                self._answer(name, outcome, top)
                for (name, _), outcome in zip(images, outcomes, strict=True)
            )
        self._metrics.images.inc(sum(not result.error for result in results))
        return ClassifyAnswer(
            model=self._model.name, version=self._model.versions[0], results=results
        )

    async def _read(self, request: web.Request) -> list[tuple[str, bytes]]:
        images = await read_images(request, self._config)
        self._metrics.body_bytes.inc(sum(len(data) for _, data in images))
        return images

    def _answer(self, name: str, outcome: Outcome | BaseException, top: int) -> ImageAnswer:
        if isinstance(outcome, FingerpostError):
            body = ErrorBody(
                code=outcome.code, message=outcome.message, retryable=outcome.retryable
            )
            return ImageAnswer(name=name, error=body)
        if isinstance(outcome, BaseException):
            raise outcome
        return ImageAnswer(
            name=name,
            predictions=best(outcome.scores, self._labels, top),
            timings_ms=outcome.timings,
        )

    async def _get_load(self, request: web.Request) -> web.Response:
        return json_response(self.load())

    async def _get_live(self, request: web.Request) -> web.Response:
        return json_response({"status": "live"})

    async def _get_engine(self, request: web.Request) -> web.Response:
        """What the registry's check asks: can this engine work? True before it is registered."""
        if not self.engine_well():
            running_s = round(self._engine.running_s(), 1)
            return json_response({"status": "stalled", "running_s": running_s}, status=503)
        return json_response({"status": "well"})

    async def _get_ready(self, request: web.Request) -> web.Response:
        """Loaded, warmed up, registered, not draining, and not stalled."""
        stalled = not self.engine_well()
        ready = self.state is WorkerState.READY and not stalled
        status = "stalled" if stalled else self.state.name.lower()
        return json_response({"status": status}, status=200 if ready else 503)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        self._metrics.in_flight.set(self.rif)
        self._metrics.queued.set(self._engine.queued)
        self._metrics.state.set(self.state.value)
        return web.Response(
            body=generate_latest(self._metrics.registry),
            headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST},
        )


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


def _top(request: web.Request) -> int:
    text = request.query.get("top", str(_DEFAULT_TOP))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InvalidRequest(f"top={text!r}: give the number of labels wanted, 0 for all")
    return int(text)
