"""The HTTP application of a worker: its protocols, load, health and metrics."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST

from fingerpost.client.wire import DEADLINE_HEADER
from fingerpost.errors import FingerpostError, UnknownModel
from fingerpost.registry import LOAD_HEADER, LoadReport, ModelReference, WorkerState
from fingerpost.registry.http.app import Handler, json_response, typed_errors
from fingerpost.registry.http.cors import allow_pages
from fingerpost.registry.http.server import HttpRunner
from fingerpost.registry.load import PROBE_TIME_HEADER, ClassLoad
from fingerpost.worker.protocols.classify import ClassifyProtocol
from fingerpost.worker.protocols.infer import InferProtocol
from fingerpost.worker.protocols.stream import StreamProtocol
from fingerpost.worker.protocols.tfserving import TensorFlowServingProtocol
from fingerpost.worker.protocols.v2.metadata import OpenInferenceMetadata
from fingerpost.worker.protocols.v2.routes import OpenInferenceProtocol
from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
from fingerpost.worker.protocols.v2.shared_regions import SharedRegions
from fingerpost.worker.serving.addressed import addressed
from fingerpost.worker.serving.admission import Admission
from fingerpost.worker.serving.errors import ErrorForms
from fingerpost.worker.serving.fast_path import FastPath, json_body
from fingerpost.worker.serving.frames import Frames
from fingerpost.worker.serving.malloc import trim_regularly
from fingerpost.worker.serving.memory import BodyMemory
from fingerpost.worker.serving.quarantine import Quarantine
from fingerpost.worker.serving.routes import RouteContext
from fingerpost.worker.serving.tenancy import Tenancy, flow_of
from fingerpost.worker.serving.turns import Turns
from fingerpost.worker.serving.uploads import Uploads
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.telemetry.probe_watch import ProbeWatch

if TYPE_CHECKING:
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.engine import Engine
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.lease_gate import LeaseGate
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["WorkerService"]

# What operators and programs on the worker's host use.
_NOT_FOR_PAGES: Final = ("/v1/admin", "/v2/repository/models", "/v2/systemsharedmemory")
# Seconds for which a forecast is used again: the answers of one batch are written together, and one
# takes as long as a fifth of a small image.
_FORECAST_S: Final = 1e-3


class WorkerService:
    """The HTTP application around the models of a manager.

    Args:
        manager: the models.
        boot_id: a number below 2**53 that identifies this process.
        config: the worker's settings.
        metrics: the worker's metrics.
        observer: logs and traces requests too; by default they are only counted.
        extra: adds further routes, such as the admin API.
        leases: lets in only requests for models with a lease; by default all are let in.
    """

    def __init__(
        self,
        manager: ModelManager,
        *,
        boot_id: int,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        observer: Observer | None = None,
        extra: Callable[[RouteContext], object] | None = None,
        leases: LeaseGate | None = None,
    ) -> None:
        self._manager = manager
        self._boot_id = boot_id
        self._config = config
        self._slots = config.batching.max_batch
        self._expected_s = self._alone_s = 0.0
        self._queued_cost = self._latency_per_cost_s = 0.0
        self._abandoned = 0
        self._stalled = False
        self._class_loads: dict[str, ClassLoad] | UnsetType = UNSET
        self._tenants: set[str] = set()
        self._flow_s: dict[Flow, float] = {}
        self._forecast_at = -math.inf
        self._stall_s = config.models.stall_s
        self._decode_threads = config.models.decode_threads
        self._metrics = metrics
        self._extra = extra
        self._leases = leases
        self._seq = 0
        self._observer = observer or Observer(metrics)
        self._fast_path = FastPath(self.load, pages=bool(config.cors.allow_origins))
        self._probes = ProbeWatch()
        self._tenancy = Tenancy(config, metrics)
        self.memory = BodyMemory(config.requests)
        self.frames = Frames(config.images, self.memory, max_bytes=config.requests.max_bytes)
        self.admission = Admission(config.requests.max_in_flight, boot_id)
        regions = SharedRegions(enabled=config.shared_memory)
        self.shared = SharedMemory(regions, self.memory, max_bytes=config.requests.max_bytes)
        self._context: RouteContext | None = None

    @property
    def context(self) -> RouteContext:
        """What other protocols share with HTTP; only after `app`."""
        if self._context is None:
            raise RuntimeError("the application was not made yet")
        return self._context

    def app(self) -> web.Application:
        """The application; its routes for images check the headers before the body is sent."""
        forms = ErrorForms()
        errors = typed_errors("images go to POST /v1/classify/MODEL", form_of=forms.of)
        app = web.Application(middlewares=[self._report_load, errors, self._check_boot_id])
        self._fast_path.add("/load", self._load_answer)
        app.add_routes(
            [
                web.get("/load", self._get_load),
                web.get("/health/live", self._get_live),
                web.get("/health/engine", self._get_engine),
                web.get("/health/ready", self._get_ready),
                web.get("/metrics", self._get_metrics),
            ]
        )
        memory = self.memory
        context = self._context = RouteContext(
            app=app,
            memory=memory,
            quarantine=Quarantine(),
            manager=self._manager,
            admission=self.admission,
            observer=self._observer,
            fast_path=self._fast_path,
            load=self.load,
            error_forms=forms,
            leases=self._leases,
            tenancy=self._tenancy,
        )
        admission, manager = self.admission, self._manager
        config, metrics = self._config, self._metrics
        uploads, turns = Uploads(config, memory, self.frames), Turns()
        shared = self.shared
        ClassifyProtocol(config, metrics, uploads, turns).add_to(context)
        InferProtocol(config, metrics, uploads, turns, shared).add_to(context)
        StreamProtocol(manager, admission, config, metrics, self.load, memory).add_to(context)
        TensorFlowServingProtocol(manager, config, metrics, uploads, turns).add_to(context)
        OpenInferenceProtocol(config, metrics, uploads, turns, shared).add_to(context)
        shared.add_to(context)
        OpenInferenceMetadata(manager, admission, config).add_to(context)
        if self._extra is not None:
            self._extra(context)
        allow_pages(app, config.cors, closed=_NOT_FOR_PAGES)
        app.cleanup_ctx.append(trim_regularly)
        app.cleanup_ctx.append(self._probes.watch_silence)
        return app

    def runner(self) -> web.AppRunner:
        """A runner of `app`, not yet set up.

        A client that disconnects cancels its request, so that its image is not run.
        """
        return HttpRunner(
            self.app(),
            self._config.connections,
            known=self._fast_path.find,
            numbers=(DEADLINE_HEADER,),
            prepare=addressed,
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )

    def engine_healthy(self) -> bool:
        """Whether neither a model nor all decoders have been at the same for over `stall_s`."""
        return self._running_s() <= self._stall_s

    def load(self, request: RequestHead | None = None) -> LoadReport:
        """The current load report; its sequence number is higher than that of all before it.

        Args:
            request: whose sender gets it: while images of other tenants wait, the expected time is
                that of an image of the sender's tenant and class. By default it is that of an image
                behind all others.
        """
        self._seq += 1
        engines = self._manager.engines()
        now = time.monotonic()
        if now - self._forecast_at >= _FORECAST_S:
            self._forecast_at = now
            self._forecast(engines)
        rif = self.admission.rif + self._abandoned
        slots, expected_s, classes = self._slots, self._expected_s, self._class_loads
        tenants: int | UnsetType = UNSET
        if self._tenants and request is not None:
            flow = flow_of(request)
            if len(self._tenants) > 1 or flow.tenant not in self._tenants:
                tenants = len(self._tenants | {flow.tenant})
                expected_s, classes = self._forecast_flow(flow, engines)
        return LoadReport(
            rif=rif,
            slots=slots,
            state=WorkerState.FAILED if self._stalled else self.admission.state,
            boot_id=self._boot_id,
            seq=self._seq,
            queued_cost=self._queued_cost,
            latency_per_cost_s=self._latency_per_cost_s * max(1.0, rif / slots),
            expected_s=expected_s,
            alone_s=self._alone_s,
            classes=classes,
            tenants=tenants,
        )

    def _classes(self, engines: tuple[Engine, ...]) -> dict[str, ClassLoad] | UnsetType:
        """The load by class, if there was another one than the first lately."""
        in_flight = self._tenancy.in_flight(self.admission.rif)
        if in_flight is None:
            return UNSET
        loads, rif = {}, 0
        for rank, name in enumerate(self._tenancy.names):
            rif += in_flight[rank]
            expected_s = max([each.forecast(0, rank)[0] for each in engines], default=0.0)
            loads[name] = ClassLoad(rif=rif, expected_s=expected_s)
        return loads

    def _forecast(self, engines: tuple[Engine, ...]) -> None:
        """Ask the engines what they do, and when an image that came now would be done."""
        self._stalled = self._running_s() > self._stall_s
        self._abandoned = sum([engine.abandoned for engine in engines])
        self._queued_cost = sum([engine.queued_cost for engine in engines])
        self._latency_per_cost_s = max([each.latency_per_cost_s for each in engines], default=0.0)
        slots, expected_s, alone_s = 0, 0.0, 0.0
        uploading = max(0, self.admission.rif - sum([engine.inside for engine in engines]))
        for engine in engines:
            slots = max(slots, engine.slots)
            forecast_s, lone_s = engine.forecast(uploading)
            if lone_s and forecast_s * alone_s >= expected_s * lone_s:  # of the busiest model
                expected_s, alone_s = forecast_s, lone_s
        # Before the first model is loaded, its places are those of the options.
        self._slots = slots or self._config.batching.max_batch
        self._expected_s, self._alone_s = expected_s, alone_s
        self._class_loads = self._classes(engines)
        if self._leases is not None:  # else there is one tenant
            self._tenants = {tenant for engine in engines for tenant in engine.tenants()}
        self._flow_s.clear()

    def _forecast_flow(
        self, flow: Flow, engines: tuple[Engine, ...]
    ) -> tuple[float, dict[str, ClassLoad] | UnsetType]:
        """The expected time of an image of one tenant and class, and the load by class with it."""
        expected_s = self._flow_s.get(flow)
        if expected_s is None:
            expected_s = max([engine.expected_s(flow) for engine in engines], default=0.0)
            expected_s = self._flow_s[flow] = max(expected_s, self._alone_s)
        if not self._class_loads:
            return expected_s, UNSET
        name = self._tenancy.names[flow.rank]
        own = ClassLoad(rif=self._class_loads[name].rif, expected_s=expected_s)
        return expected_s, {**self._class_loads, name: own}

    def _running_s(self) -> float:
        engines = self._manager.engines()
        decoding = [began for engine in engines for began in engine.decoding_since()]
        return max(self._decoding_s(decoding), *(engine.running_s() for engine in engines), 0.0)

    def _decoding_s(self, began: list[float]) -> float:
        """Seconds for which all decoders have been at the same images; 0 while one is free."""
        if len(began) < self._decode_threads:
            return 0.0
        return time.monotonic() - max(began)

    @web.middleware
    async def _report_load(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Add the load report to every response that has none."""
        response = await handler(request)
        if not response.prepared and LOAD_HEADER not in response.headers:
            response.headers[LOAD_HEADER] = self.load(request).to_header()
        return response

    @web.middleware
    async def _check_boot_id(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what is meant for another process; requests with images do it by themselves."""
        if request.method != hdrs.METH_POST:
            self.admission.check_boot_id(request)
        return await handler(request)

    def _load_answer(self, request: RequestHead) -> tuple[bytes, LoadReport]:
        """The load as JSON, and for the header: to who shows a lease, as it concerns that tenant.

        A lease that no image came with yet is not verified for that; it counts as a new tenant's.
        Else a client that has renewed its lease would take every worker for full.
        """
        if (sent_at := request.headers.get(PROBE_TIME_HEADER)) is not None:
            self._probes.note(sent_at, request.remote)
        receiver = None
        if self._leases is not None and hdrs.AUTHORIZATION in request.headers:
            receiver = request
            permit = self._leases.known(request)
            if permit is not None:
                with contextlib.suppress(FingerpostError):  # a class that is not valid here
                    self._tenancy.flow(request, permit.grant)
        report = self.load(receiver)
        return msgspec.json.encode(replace(report, images=self._metrics.images)), report

    async def _get_load(self, request: web.Request) -> web.Response:
        body, report = self._load_answer(request)
        response = json_body(body)
        response.headers[LOAD_HEADER] = report.to_header()
        return response

    async def _get_live(self, request: web.Request) -> web.Response:
        return json_response({"status": "live"})

    async def _get_engine(self, request: web.Request) -> web.Response:
        """The registry's check: whether the engine works, also before it is registered.

        With `?boot_id=` also whether this is that process; another one, which has its address now,
        answers 410.
        """
        wanted = request.query.get("boot_id")
        if wanted is not None and wanted != str(self._boot_id):
            body = {"status": "another process", "boot_id": self._boot_id}
            return json_response(body, status=410)
        if not self.engine_healthy():
            running_s = round(self._running_s(), 1)
            return json_response({"status": "stalled", "running_s": running_s}, status=503)
        return json_response({"status": "healthy"})

    async def _get_ready(self, request: web.Request) -> web.Response:
        """Whether the worker is loaded, warmed up, registered, not draining and not stalled."""
        stalled = not self.engine_healthy()
        ready = self.admission.state is WorkerState.READY and not stalled
        status = "stalled" if stalled else self.admission.state.name.lower()
        return json_response({"status": status}, status=200 if ready else 503)

    async def _get_metrics(self, request: web.Request) -> web.Response:
        text = self.metrics_text()
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    def metrics_text(self) -> bytes:
        """The metrics, for Prometheus."""
        queued: dict[str, int] = {}
        versions = {}
        for model in self._manager.model_names():
            versions[model] = self._manager.statuses(model)
        for info in self._manager.models():
            for version in info.versions:
                with (
                    contextlib.suppress(UnknownModel),
                    self._manager.acquire(ModelReference(info.name, version)) as served,
                ):
                    queued[info.name] = queued.get(info.name, 0) + served.engine.queued
        return self._metrics.render(
            rif=self.admission.rif,
            state=self.admission.state.value,
            body_memory=(self.memory.used, self.memory.most),
            queued=queued,
            versions=versions,
        )
