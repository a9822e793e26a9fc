"""What is counted and logged of a request, however it ends."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import msgspec
from aiohttp import web

from fingerpost.client.wire import TimingsMs
from fingerpost.errors import Overloaded
from fingerpost.worker.telemetry.access_log import AccessEntry, AccessLog
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.telemetry.request import RequestRecord, current_request
from tests.support.observed import classify, serving


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"fingerpost_worker_{name}", labels)


def entries(file: Path) -> list[AccessEntry]:
    return [msgspec.json.decode(line, type=AccessEntry) for line in file.read_text().splitlines()]


async def test_an_answered_request(tmp_path: Path) -> None:
    metrics, file = WorkerMetrics(), tmp_path / "access.log"
    log = AccessLog(str(file), dropped=metrics.access_log_dropped)
    observer = Observer(metrics, access_log=log)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with serving(observer, classify) as http:
        async with http.post("/v1/classify/cats?top=1", data=b"x" * 5000, headers=headers):
            pass
        async with http.post("/", data=b"", headers={"traceparent": "00-nonsense"}):
            pass
    assert current_request() is None
    await observer.aclose()
    assert value(metrics, "requests_total", model="cats", status="200") == 2
    assert value(metrics, "body_bytes_total", model="cats") == 5000
    assert value(metrics, "total_seconds_count", model="cats") == 2
    first, second = entries(file)
    assert (first.method, first.path, first.status, first.error) == (
        "POST",
        "/v1/classify/cats",
        200,
        "",
    )
    assert (first.model, first.version, first.images) == ("cats", "3", 2)
    assert (first.body_bytes, second.body_bytes) == (5000, 0)
    assert (first.decode_ms, first.queue_ms, first.inference_ms) == (150, 100, 200)
    assert 0 < first.total_ms < 10_000
    assert first.client == "127.0.0.1"
    assert (first.trace_id, second.trace_id) == ("0af7651916cd43dd8448eb211c80319c", "")
    assert first.time.endswith("Z")
    assert first.time[:10] == time.strftime("%Y-%m-%d", time.gmtime())


async def test_failures(tmp_path: Path) -> None:
    metrics, file = WorkerMetrics(), tmp_path / "access.log"
    observer = Observer(
        metrics, access_log=AccessLog(str(file), dropped=metrics.access_log_dropped)
    )

    async def fail(request: web.Request, record: RequestRecord) -> web.Response:
        if request.path == "/bug":
            raise ZeroDivisionError
        record.served_by("cats", "3")
        observer.refused(request, Overloaded("full", retry_after_s=1.0))
        record.failed(Overloaded("full", retry_after_s=1.0))
        return web.Response(status=429)

    async with serving(observer, fail) as http:
        for path in ("/bug", "/full"):
            async with http.post(path):
                pass
    await observer.aclose()
    told = [(each.status, each.error, each.model) for each in entries(file)]
    assert told == [(500, "", ""), (429, "overloaded", ""), (429, "overloaded", "cats")]
    assert value(metrics, "requests_total", model="", status="500") == 1
    assert value(metrics, "requests_total", model="", status="429") == 1
    assert value(metrics, "requests_total", model="cats", status="429") == 1


async def test_a_client_that_leaves_is_499() -> None:
    metrics = WorkerMetrics()
    here, gone = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request, record: RequestRecord) -> web.Response:
        here.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    async with serving(Observer(metrics), wait) as http:
        request = asyncio.create_task(http.post("/"))
        await here.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await asyncio.wait_for(gone.wait(), 10)
    assert value(metrics, "requests_total", model="", status="499") == 1


async def test_a_long_streams_bytes_are_counted_on_the_way() -> None:
    metrics = WorkerMetrics()

    async def stream(request: web.Request, record: RequestRecord) -> web.Response:
        record.served_by("cats", "3")
        async for _ in request.content.iter_chunked(100_000):
            record.image(time.monotonic(), TimingsMs(decode=0, queue=0, inference=0))
        on_the_way = value(metrics, "body_bytes_total", model="cats") or 0
        assert 2_000_000 <= on_the_way <= 3_500_000
        return web.Response()

    body = io.BytesIO(bytes(3_500_000))
    async with serving(Observer(metrics), stream) as http, http.post("/", data=body):
        pass
    assert value(metrics, "requests_total", model="cats", status="200") == 1
    assert value(metrics, "body_bytes_total", model="cats") == 3_500_000


async def test_one_task_for_each_image_tells_the_same_request() -> None:
    metrics = WorkerMetrics()

    async def one(number: int) -> None:
        record = current_request()
        assert record is not None
        record.image(time.monotonic(), TimingsMs(decode=0, queue=0, inference=number))

    async def several(request: web.Request, record: RequestRecord) -> web.Response:
        await asyncio.gather(*(one(number) for number in range(5)))
        return web.json_response([record.images, record.inference_ms])

    async with serving(Observer(metrics), several) as http, http.post("/") as response:
        assert await response.json() == [5, 4]
