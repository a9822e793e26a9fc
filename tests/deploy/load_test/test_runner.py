"""Load tests against a real server that stalls, refuses, or is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from PIL import Image
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, RoutingConfig
from fingerpost.client.wire import ClassifyAnswer, ImageAnswer
from fingerpost.deploy.load_test import LoadTest, Plan, Report
from fingerpost.deploy.load_test.samples import drawn_image, read_images
from fingerpost.errors import (
    BrokenImage,
    ConfigurationError,
    FingerpostError,
    Overloaded,
    RegistryError,
    UnknownService,
)
from fingerpost.registry.http.app import bind, serve

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("no_task_left")]

ANSWER = msgspec.json.encode(
    ClassifyAnswer(
        model="digits",
        version="1",
        results=(ImageAnswer(name="data", predictions=(("a", 0.75),)),),
    )
)


class Worker:
    """Answers at once; `before` may wait or raise first."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.before: Callable[[], Awaitable[None]] | None = None
        self.url = ""

    async def classify(self, request: web.Request) -> web.Response:
        self.images.append(await request.read())
        try:
            if self.before is not None:
                await self.before()
        except FingerpostError as error:
            return web.Response(status=error.status, body=error.to_json())
        return web.Response(body=ANSWER)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    app = web.Application()
    app.router.add_post("/{tail:.*}", worker.classify)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await serve(runner, bind("127.0.0.1", 0))
    worker.url = f"static://127.0.0.1:{runner.addresses[0][1]}?model=digits"
    yield worker
    await runner.cleanup()


async def run(worker: Worker, plan: Plan, *images: bytes) -> Report:
    config = ClientConfig(routing=RoutingConfig(policy="round-robin"))
    async with Client(registry=worker.url, config=config) as client:
        test = LoadTest(client, images or (b"image",), plan)
        await test.run()
    report = test.report()
    assert report is not None
    return report


def stall(worker: Worker, *, after: int, seconds: float) -> None:
    """After so many images the worker answers nothing for so long, once."""
    over: asyncio.Future[None] | None = None

    async def before() -> None:
        nonlocal over
        if len(worker.images) <= after:
            return
        if over is None:
            loop = asyncio.get_running_loop()
            over = loop.create_future()
            loop.call_later(seconds, over.set_result, None)
        await asyncio.shield(over)

    worker.before = before


async def test_a_stall_shows_in_every_image_that_it_held_up(worker: Worker) -> None:
    stall(worker, after=130, seconds=1.0)
    plan = Plan(
        model="digits", rate=100, arrivals="constant", seconds=3, warm_up_s=0.2, max_outstanding=2
    )
    report = await run(worker, plan)
    assert report.good
    assert (report.sent, report.answered) == (300, 300)
    # The naive figure: 2 of 300 images were in flight, too few for the 99th percentile to see.
    assert report.service_ms.p99 < 500
    assert report.service_ms.max > 990
    # What users would have seen: a third of the images waited, up to the whole second.
    assert report.response_ms is not None
    assert report.response_ms.p99 > 900
    assert report.response_ms.p90 > 600
    assert report.response_ms.p50 < 500
    assert report.held >= 90
    assert any("--max-outstanding" in note for note in report.notes)
    # Few answers in the second of the stall, and more than were due in the next.
    assert min(each.images_per_s for each in report.over_time) < 50
    assert max(each.images_per_s for each in report.over_time) > 150


async def test_a_closed_loop_does_not_see_a_stall_but_by_its_expected_interval(
    worker: Worker,
) -> None:
    stall(worker, after=500, seconds=0.5)
    plan = Plan(model="digits", concurrency=2, seconds=1.5, warm_up_s=0, expected_interval_s=0.005)
    report = await run(worker, plan)
    assert report.loop == "closed"
    assert report.good
    assert report.sent == report.answered > 500
    assert report.in_flight <= 2
    assert report.response_ms is not None
    assert report.service_ms.max > 490
    assert report.service_ms.p99 < 50 < report.response_ms.p99


async def test_a_closed_loop_finds_its_concurrency(worker: Worker) -> None:
    report = await run(worker, Plan(model="digits", seconds=0.5, warm_up_s=0.1), b"one", b"three")
    assert report.good
    assert report.images_per_s > 50
    assert {len(each) for each in worker.images} == {3, 5}
    assert report.mb_per_s == pytest.approx(4e-6 * report.images_per_s, rel=0.1, abs=0.001)


async def test_failures_are_counted_by_their_code(worker: Worker) -> None:
    async def refuse() -> None:
        if len(worker.images) == 1:
            raise Overloaded("full")
        if worker.images[-1] == b"broken":
            raise BrokenImage("broken")

    worker.before = refuse
    plan = Plan(model="digits", rate=50, arrivals="constant", seconds=1, warm_up_s=0)
    report = await run(worker, plan, b"good", b"broken")
    assert not report.good
    assert (report.sent, report.answered, report.failed) == (50, 25, 25)
    assert report.errors == {"broken_image": 25}
    assert report.retries["overloaded"] >= 1


async def test_what_cannot_be_sent_in_time_is_counted(worker: Worker) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.1)

    worker.before = slow
    plan = Plan(
        model="digits",
        rate=100,
        arrivals="constant",
        seconds=1,
        warm_up_s=0,
        max_outstanding=2,
        deadline_s=0.5,
    )
    report = await run(worker, plan)
    assert not report.good
    assert report.sent + report.not_sent == 100
    assert report.not_sent > 50
    assert any("not sent before their deadline" in note for note in report.notes)
    assert report.response_ms is not None
    assert report.response_ms.p50 > 400


async def test_a_cancelled_test_has_its_figures(worker: Worker) -> None:
    async with Client(registry=worker.url) as client:
        test = LoadTest(client, [b"image"], Plan(model="digits", seconds=60, warm_up_s=0))
        assert test.report() is None
        task = asyncio.create_task(test.run())
        await until(lambda: len(worker.images) >= 500)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    report = test.report()
    assert report is not None
    assert report.interrupted
    assert 0 < report.answered <= len(worker.images)
    assert 0 <= report.unfinished == report.sent - report.answered
    assert report.seconds < 59


async def test_it_does_not_start_without_the_service(worker: Worker) -> None:
    async with Client(registry=worker.url) as client:
        test = LoadTest(client, [b"image"], Plan(model="flowers"))
        with pytest.raises(UnknownService):
            await test.run()
        assert test.report() is None
    config = ClientConfig(wait_for_ready_s=0.1)
    async with Client("http://127.0.0.1:9", config=config) as client:
        with pytest.raises(RegistryError):
            await LoadTest(client, [b"image"], Plan(model="digits")).run()


def test_the_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    drawn = drawn_image()
    assert drawn == drawn_image() != drawn_image(1)
    for name in ("deep/b.JPG", "a.jpg"):
        (tmp_path / name).write_bytes(drawn_image(len(name)))
    (tmp_path / "notes.txt").write_text("no image")
    assert read_images([tmp_path]) == [drawn_image(5), drawn_image(10)]
    assert read_images([tmp_path / "notes.txt"]) == [b"no image"]
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (480, 360)
    for wrong, message in (("nothing", "cannot be read"), ("empty", "no images in")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigurationError, match=message):
            read_images([tmp_path / wrong])
