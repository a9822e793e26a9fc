"""Traces: the spans themselves, and the way to a collector over real OTLP."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from fingerpost.client.wire import TimingsMs
from fingerpost.errors import ConfigurationError, ModelFailed
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, serve
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import DrainConfig, WorkerConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.telemetry.request import MAX_TRACED_IMAGES, RequestRecord
from fingerpost.worker.telemetry.tracing import Tracing, start_tracing
from fingerpost.worker.worker import Worker
from tests.support.colours import encoded
from tests.support.observed import classify, serving
from tests.support.optional import not_none

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


def recording(**settings: Any) -> tuple[Observer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, **settings)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Observer(WorkerMetrics(), tracing=Tracing(provider)), exporter


def named(spans: tuple[ReadableSpan, ...], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


async def test_a_request_and_its_images_within_the_callers_trace() -> None:
    observer, exporter = recording()
    before = time.time_ns()
    async with serving(observer, classify) as http:
        async with http.post("/v1/classify/cats", data=b"1234", headers=CALLER):
            pass
        async with http.post("/", data=b"1234"):
            pass
    after = time.time_ns()
    spans = exporter.get_finished_spans()
    with_caller, alone = named(spans, "worker.request")
    assert with_caller.kind is SpanKind.SERVER
    assert f"{not_none(with_caller.context).trace_id:032x}" == TRACE
    assert f"{not_none(with_caller.parent).span_id:016x}" == "b7ad6b7169203331"
    assert alone.parent is None
    assert with_caller.status.status_code is StatusCode.UNSET
    assert dict(not_none(with_caller.attributes)) == {
        "http.request.method": "POST",
        "url.path": "/v1/classify/cats",
        "http.response.status_code": 200,
        "http.request.body.size": 4,
        "fingerpost.model": "cats",
        "fingerpost.version": "3",
        "fingerpost.images": 2,
    }
    started, ended = not_none(with_caller.start_time), not_none(with_caller.end_time)
    # The clock of the day may be set meanwhile.
    assert before - 50_000_000 < started <= ended < after + 50_000_000
    children = [span for span in spans if span.parent == with_caller.context]
    assert [child.name for child in children] == ["decode", "queue", "inference"] * 2
    for first, second in itertools.pairwise(children[:3]):
        assert first.end_time == second.start_time
    lengths = [
        round((not_none(child.end_time) - not_none(child.start_time)) / 1e9, 3)
        for child in children
    ]
    assert lengths == [0.1, 0.1, 0.2, 0.15, 0.05, 0.1]
    await observer.aclose()


async def test_failures_are_marked() -> None:
    observer, exporter = recording()

    async def fail(request: web.Request, record: RequestRecord) -> web.Response:
        if request.path == "/bug":
            raise ZeroDivisionError
        record.failed(ModelFailed("it broke"))
        return web.Response(status=500)

    async with serving(observer, fail) as http:
        for path in ("/bug", "/model"):
            async with http.post(path):
                pass
    bug, model = exporter.get_finished_spans()
    assert bug.status.status_code is model.status.status_code is StatusCode.ERROR
    assert not_none(bug.attributes)["http.response.status_code"] == 500
    assert not_none(model.attributes)["error.type"] == "model_failed"
    await observer.aclose()


async def test_a_stream_does_not_flood_the_collector() -> None:
    observer, exporter = recording()

    async def stream(request: web.Request, record: RequestRecord) -> web.Response:
        record.served_by("cats", "3")
        for _ in range(1000):
            record.image(time.monotonic(), TimingsMs(decode=1, queue=1, inference=1))
        return web.Response()

    async with serving(observer, stream) as http, http.post("/"):
        pass
    spans = exporter.get_finished_spans()
    assert len(named(spans, "inference")) == MAX_TRACED_IMAGES
    assert not_none(named(spans, "worker.request")[0].attributes)["fingerpost.images"] == 1000
    await observer.aclose()


async def test_what_is_not_sampled_is_not_recorded() -> None:
    observer, exporter = recording(sampler=ParentBased(TraceIdRatioBased(0)))
    async with serving(observer, classify) as http:
        async with http.post("/"):
            pass
        async with http.post("/", headers=CALLER):  # whose own sampler said yes
            pass
    assert len(named(exporter.get_finished_spans(), "worker.request")) == 1
    await observer.aclose()


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.came = asyncio.Event()
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        self.came.set()
        return web.Response()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = bind("127.0.0.1", 0)
    await serve(runner, listener)
    collector.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield collector
    await runner.cleanup()


async def test_over_otlp_to_a_collector(
    collector: Collector, no_variables: pytest.MonkeyPatch
) -> None:
    no_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    no_variables.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    tracing = start_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, requested=False)
    observer = Observer(WorkerMetrics(), tracing=tracing)
    async with serving(observer, classify) as http, http.post("/", headers=CALLER):
        pass
    await observer.aclose()  # sends what waits
    (request,) = collector.requests
    resource = {
        each.key: each.value.string_value for each in request.resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "fingerpost-worker"
    assert resource["deployment.environment.name"] == "test"
    spans = request.resource_spans[0].scope_spans[0].spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert sorted({span.name for span in spans}) == [
        "decode",
        "inference",
        "queue",
        "worker.request",
    ]


MODEL = """
class Model:
    def __init__(self, folder):
        pass

    def predict(self, batch):
        return batch.mean(axis=(1, 2)) / 255
"""


async def test_a_whole_workers_requests(
    collector: Collector, no_variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "colours").mkdir()
    (tmp_path / "colours" / "mean.py").write_text(MODEL)
    (tmp_path / "colours" / "model.toml").write_text(
        'framework = "python"\nclass = "mean:Model"\n[input]\nheight = 16\nwidth = 16\n'
    )
    no_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    form = aiohttp.FormData()
    form.add_field("data", encoded("green"), filename="a.png")
    form.add_field("data", encoded("blue"), filename="b.png")
    form.add_field("data", b"nothing", filename="c.png")
    async with EmbeddedRegistry(port=0) as registry:
        config = WorkerConfig(registry=registry.url, drain=DrainConfig(lease_s=0.0))
        files = find_model(tmp_path / "colours")
        async with (
            Worker(files, lambda found: load_backend(found, LoadConfig()), config) as worker,
            aiohttp.ClientSession(worker.instance.url, headers=CALLER) as http,
        ):
            async with http.post("/v1/classify/colours", data=form) as response:
                assert response.status == 200
            async with http.post("/v1/classify/cats", data=b"x") as response:
                assert response.status == 404
    spans = [
        span
        for request in collector.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    well, unknown = (span for span in spans if span.name == "worker.request")
    assert told(well)["fingerpost.images"] == 2
    assert told(well)["fingerpost.model"] == "colours"
    assert told(unknown)["error.type"] == "unknown_model"
    children = [span for span in spans if span.parent_span_id == well.span_id]
    assert (
        sorted(span.name for span in children) == ["decode"] * 2 + ["inference"] * 2 + ["queue"] * 2
    )
    for span in children:
        assert well.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= well.end_time_unix_nano


def told(span: Any) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def test_a_collector_that_is_away_delays_neither_requests_nor_the_end(
    no_variables: pytest.MonkeyPatch,
) -> None:
    with bind("127.0.0.1", 0) as nobody:  # bound, but nobody listens: refused
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        no_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        observer = Observer(WorkerMetrics(), tracing=start_tracing({}, requested=True))
        async with serving(observer, classify) as http, asyncio.timeout(5), http.post("/"):
            pass
        started = time.monotonic()
        await observer.aclose()
        assert time.monotonic() - started < 5
        left = [each.name for each in threading.enumerate() if each.name.lower().startswith("otel")]
        assert not left, "a thread tries on that nobody waits for"


OFF = {
    "nothing set": {},
    "none": {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    "disabled": {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    "grpc for the whole cluster": {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    },
    "zipkin for the whole cluster": {"OTEL_TRACES_EXPORTER": "zipkin"},
}


@pytest.mark.parametrize("case", OFF)
def test_off_unless_it_can_be_on(case: str) -> None:
    assert start_tracing(OFF[case], requested=False) is None


def test_asked_for_what_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        start_tracing({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, requested=True)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"fingerpost\[otel\]"):
        start_tracing({}, requested=True)
    assert start_tracing({"OTEL_TRACES_EXPORTER": "otlp"}, requested=False) is None


@pytest.mark.shell
def test_nothing_is_imported_when_off() -> None:
    """The extra may be missing, and costs no start-up time."""

    code = (
        "import sys; from fingerpost.worker.telemetry.tracing import start_tracing;"
        "from fingerpost.worker.telemetry.observer import Observer;"
        "start_tracing({}, requested=False);"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
