"""Images for an overloaded worker wait in the client, the oldest first; against real servers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from tests.support.paced import paced_socket
from tests.support.waiting import until

from fingerpost.client.transport import opener
from fingerpost.client.wire import TimingsMs
from fingerpost.errors import DeadlineExceeded, Overloaded

_IMAGE_S = 0.02
_PLACES = 4


def with_places(worker, places: int = _PLACES, *, retry_after_s: float | None = _IMAGE_S):
    """Answers so many images at a time, and refuses further ones by their headers."""

    async def behave(request: web.Request) -> web.StreamResponse:
        if worker.running > places:
            seconds = retry_after_s
            return worker.refuse(Overloaded("full", retry_after_s=seconds), Retry_After="1")
        await asyncio.sleep(_IMAGE_S)
        return await worker.answer(request)

    worker.behave = behave


async def test_overload_costs_no_retry_budget_and_no_throughput(cluster):
    [worker] = await cluster.workers("one")
    with_places(worker)
    client = await cluster.client(worker)
    loop = asyncio.get_running_loop()
    began = loop.time()
    results = await asyncio.gather(*(client.classify(b"1", "digits") for _ in range(200)))
    elapsed_s = loop.time() - began
    assert {each.label for each in results} == {"1"}
    # By the budget there would be 50 retries in the first 10 s, so that most images would wait.
    assert client.stats.retries["overloaded"] > 50
    assert client.stats.retries["overloaded"] < 2 * len(results)
    assert elapsed_s < 3 * len(results) * _IMAGE_S / _PLACES


async def test_images_that_wait_are_not_overtaken(cluster):
    [worker] = await cluster.workers("one")
    with_places(worker)
    client = await cluster.client(worker)
    order: list[int] = []

    async def send(number: int) -> None:
        await client.classify(b"1", "digits")
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(send(number))
            await asyncio.sleep(_IMAGE_S / 40)
    displaced = [abs(place - number) for place, number in enumerate(order)]
    assert max(displaced) <= 4 * _PLACES


async def test_an_overloaded_worker_does_not_hold_up_another(cluster):
    full, good = await cluster.workers("full", "good")
    full.behave = lambda request: _refused(full)
    client = await cluster.client(full, good)
    results = await asyncio.gather(*(client.classify(b"1", "digits") for _ in range(100)))
    assert {each.worker for each in results} == {"good"}
    assert max(each.elapsed_s for each in results) < 2.0


async def _refused(worker) -> web.StreamResponse:
    return worker.refuse(Overloaded("full"), Retry_After="1")


async def test_a_worker_of_an_older_release_needs_no_precise_time(cluster):
    [worker] = await cluster.workers("one")
    with_places(worker, retry_after_s=None)  # the header alone: `Retry-After: 1`
    client = await cluster.client(worker)
    results = await asyncio.gather(*(client.classify(b"1", "digits") for _ in range(100)))
    assert len(results) == 100
    assert max(each.elapsed_s for each in results) < 3 * 100 * _IMAGE_S / _PLACES + 1.5


async def test_those_that_are_cancelled_or_late_leave_the_line_to_the_others(cluster):
    [worker] = await cluster.workers("one")
    with_places(worker, 1)
    client = await cluster.client(worker)
    calls = [
        asyncio.create_task(client.classify(b"1", "digits", timeout_s=0.2 if n % 3 == 2 else 30.0))
        for n in range(60)
    ]
    await until(lambda: client.stats.retries.get("overloaded"))
    for each in calls[1::3]:
        each.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in results[1::3]} <= {asyncio.CancelledError, type(results[0])}
    assert {type(each) for each in results[2::3]} <= {DeadlineExceeded, type(results[0])}
    assert DeadlineExceeded in {type(each) for each in results[2::3]}
    assert [each.label for each in results[::3] if not isinstance(each, BaseException)] == [
        "1"
    ] * 20


async def test_a_request_says_how_long_it_has_waited_once_its_worker_is_overloaded(cluster):
    [worker] = await cluster.workers("one")
    waited_ms: list[int | None] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        text = request.headers.get("Fingerpost-Waited-Ms")
        waited_ms.append(None if text is None else int(text))
        if len(waited_ms) == 2:
            return worker.refuse(Overloaded("full", retry_after_s=0.1))
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    for _ in range(2):
        await client.classify(b"1", "digits")
    assert waited_ms[:2] == [None, None]
    assert waited_ms[2] is not None
    assert 100 <= waited_ms[2] < 1000


async def test_a_wait_beyond_the_deadline_is_refused_at_once(cluster):
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.StreamResponse:
        return worker.refuse(Overloaded("full", retry_after_s=20.0))

    worker.behave = behave
    client = await cluster.client(worker)
    with pytest.raises(DeadlineExceeded):
        await client.classify(b"1", "digits", timeout_s=10.0)
    assert len(worker.requests) == 1


async def test_images_that_a_slow_link_cannot_carry_in_time_are_not_sent(cluster, monkeypatch):
    """None is held back before one was cut off at its deadline during its upload."""
    [worker] = await cluster.workers("one")
    worker.timings = TimingsMs(decode=0.0, queue=0.0, inference=0.0)
    monkeypatch.setattr(opener, "_socket", lambda info: paced_socket(50_000, *info[:3]))
    client = await cluster.client(worker)

    async def send(images: int) -> list[str]:
        calls = (client.classify(bytes(400_000), "digits", timeout_s=1.0) for _ in range(images))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in ends} == {DeadlineExceeded}
        return [str(each) for each in ends]

    assert not [each for each in await send(4) if "not sent" in each]
    await send(4)  # of these it learns the link's rate
    assert [each for each in await send(8) if "not sent" in each]


async def test_a_worker_that_takes_no_bytes_is_not_a_slow_link(cluster):
    [worker] = await cluster.workers("one")
    gate = asyncio.Event()

    async def asleep(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.pause_reading()
        await gate.wait()
        return await worker.answer(request)

    worker.behave = asleep
    client = await cluster.client(worker)
    for _ in range(3):
        calls = (client.classify(bytes(8_000_000), "digits", timeout_s=1.0) for _ in range(4))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in ends} == {DeadlineExceeded}
        assert not [each for each in ends if "not sent" in str(each)]
    gate.set()
