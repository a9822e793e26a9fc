"""Spans of the client, and of a real worker below them."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.waiting import until_blocking

from fingerpost.client import Client, SyncClient
from fingerpost.client.tracing import Tracing
from fingerpost.errors import BrokenImage, ConfigurationError, EmptyImage
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import DrainConfig, WorkerConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.telemetry import observer as worker_observer
from fingerpost.worker.telemetry.tracing import Tracing as WorkerTracing
from fingerpost.worker.worker import Worker


class Recorded:
    """A provider that keeps its spans."""

    def __init__(self, **settings: object) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **settings)  # type: ignore[arg-type]
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)

    def spans(self, name: str = "client.classify") -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == name]


async def test_from_the_callers_span_to_that_of_a_real_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colours").mkdir()
    (tmp_path / "colours" / "mean.py").write_text(
        "class Model:\n"
        "    def __init__(self, folder): pass\n"
        "    def predict(self, batch): return batch.mean(axis=(1, 2)) / 255\n"
    )
    (tmp_path / "colours" / "model.toml").write_text(
        'framework = "python"\nclass = "mean:Model"\n[input]\nheight = 16\nwidth = 16\n'
    )
    ours, theirs = Recorded(), Recorded()
    worker_tracing = WorkerTracing(theirs.provider)
    monkeypatch.setattr(worker_observer, "start_tracing", lambda *_, **__: worker_tracing)

    def use(registry: str) -> None:
        with SyncClient(registry=registry, tracing=ours.tracing) as client:
            with ours.provider.get_tracer("program").start_as_current_span("program"):
                client.classify(encoded("red"), "colours")
                list(client.stream([encoded("red")], "colours@1"))
            with pytest.raises(BrokenImage):
                client.classify(encoded("red")[:60], "colours")

    async with EmbeddedRegistry(port=0) as registry:
        config = WorkerConfig(registry=registry.url, drain=DrainConfig(lease_s=0.0))
        files = find_model(tmp_path / "colours")
        async with Worker(files, lambda found: load_backend(found, LoadConfig()), config) as worker:
            await worker.register()
            await asyncio.to_thread(use, registry.url)
            instance = worker.instance
    one, streamed, broken = ours.spans()
    [program] = ours.spans("program")
    requests = theirs.spans("worker.request")
    assert [not_none(each.parent).span_id for each in requests] == [
        not_none(each.context).span_id for each in (one, streamed, broken)
    ]
    assert one.parent == streamed.parent == program.context
    assert broken.parent is None
    assert (
        not_none(requests[0].context).trace_id
        == not_none(requests[1].context).trace_id
        == not_none(program.context).trace_id
    )
    assert one.kind is SpanKind.CLIENT
    assert one.status.status_code is StatusCode.UNSET
    assert dict(not_none(one.attributes)) == {
        "fingerpost.model": "colours",
        "fingerpost.version": "1",
        "fingerpost.worker": instance.id,
        "fingerpost.address": instance.address,
        "fingerpost.attempts": 1,
        "fingerpost.retried": (),
        "http.request.body.size": len(encoded("red")),
    }
    assert not_none(streamed.attributes)["fingerpost.model"] == "colours@1"
    assert broken.status.status_code is StatusCode.ERROR
    assert not_none(broken.attributes)["error.type"] == "broken_image"
    for span, request in zip((one, streamed, broken), requests, strict=True):
        # Of one clock, read twice.
        assert not_none(span.start_time) <= not_none(request.start_time) + 50_000_000
        assert not_none(request.end_time) <= not_none(span.end_time) + 50_000_000


async def test_retries_are_told(cluster) -> None:
    gone, good = await cluster.workers("gone", "good")
    proxy = await cluster.proxy(gone, good)
    await gone.server.stop()
    recorded = Recorded()
    async with Client(proxy.url, tracing=recorded.tracing) as client:
        while not client.stats.retries:
            await client.classify(b"1", "digits")
    *_, last = recorded.spans()
    assert last.attributes is not None
    assert last.attributes["fingerpost.retried"] == ("unreachable",)
    assert last.attributes["fingerpost.attempts"] == 2
    assert last.attributes["fingerpost.worker"] == "good"


async def test_a_cancelled_image_ends_its_span(cluster) -> None:
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    async def never(request):
        await asyncio.Event().wait()

    worker.behave = never
    recorded = Recorded()
    async with Client(proxy.url, tracing=recorded.tracing) as client:
        call = asyncio.create_task(client.classify(b"1", "digits"))
        await asyncio.to_thread(until_blocking, lambda: worker.running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(recorded.spans()) == 1


async def test_what_is_not_sampled_is_sent_as_such(cluster) -> None:
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)
    seen = []

    async def note(request):
        seen.append(request.headers["traceparent"])
        return await worker.answer(request)

    worker.behave = note
    recorded = Recorded(sampler=ALWAYS_OFF)
    async with Client(proxy.url, tracing=recorded.tracing) as client:
        await client.classify(b"1", "digits")
        with pytest.raises(EmptyImage):
            await client.classify(b"", "digits")
    assert recorded.spans() == []
    [sent] = seen
    assert int(sent[-2:], 16) & 1 == 0


def test_the_global_provider_goes_to_other_processes() -> None:
    client = SyncClient(tracing=Tracing())
    assert isinstance(pickle.loads(pickle.dumps(client)), SyncClient)  # noqa: S301 - our own


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace.propagation.tracecontext", None)
    with pytest.raises(ConfigurationError, match=r"fingerpost\[otel\]"):
        Tracing()


@pytest.mark.shell
def test_nothing_is_imported_when_off() -> None:
    code = (
        "import sys; from fingerpost.client import SyncClient; import fingerpost.client.tracing;"
        "SyncClient().close();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
