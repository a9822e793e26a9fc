"""A worker that computes for long is not silent; against real servers on free ports."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.errors import DeadlineExceeded, SuspectImage
from fingerpost.registry import WorkerState


def taking(worker, seconds: float):
    async def behave(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await worker.answer(request)

    return behave


def forever(worker):
    async def behave(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    return behave


def saying(worker, **changes):
    """Answers `GET /load` with some values of its report changed."""

    async def answer_load(request: web.Request) -> web.StreamResponse:
        report = msgspec.structs.replace(worker.report(), **changes)
        return web.Response(body=msgspec.json.encode(report))

    return answer_load


def broken(worker):
    async def answer_load(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    return answer_load


def not_json(worker):
    async def answer_load(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\xff" * 100)

    return answer_load


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_slow_model_is_waited_for_and_runs_once(cluster, workers):
    found = await cluster.workers(*"ab"[:workers])
    for each in found:
        each.behave = taking(each, 1.3)
    client = await cluster.client(*found, response_timeout_s=0.3, probe_timeout_s=0.2)
    result = await client.classify(b"123", "digits")
    assert (result.label, result.attempts, result.retried) == ("3", 1, ())
    assert sum(len(each.requests) for each in found) == 1


async def test_a_long_queue_is_waited_for_and_every_image_runs_once(cluster):
    [worker] = await cluster.workers("one")
    lock = asyncio.Lock()

    async def one_at_a_time(request: web.Request) -> web.StreamResponse:
        async with lock:
            await asyncio.sleep(0.02)
            return await worker.answer(request)

    worker.behave = one_at_a_time
    client = await cluster.client(worker, response_timeout_s=0.3)
    results = await asyncio.gather(*(client.classify(b"1", "digits") for _ in range(100)))
    assert len(worker.requests) == len(results) == 100
    assert max(each.attempts for each in results) == 1
    # All that wait share one question in each period.
    assert worker.probes <= 2 * max(each.elapsed_s for each in results) / 0.15


async def test_a_draining_worker_finishes_what_it_has(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = taking(worker, 1.0)
    client = await cluster.client(worker, response_timeout_s=0.3)
    call = asyncio.create_task(client.classify(b"1", "digits"))
    await until(lambda: worker.running)
    worker.state = WorkerState.DRAINING
    assert (await call).attempts == 1


@pytest.mark.parametrize(
    "answer_load",
    [
        pytest.param(lambda worker: saying(worker, boot_id=4711), id="another process"),
        pytest.param(lambda worker: saying(worker, rif=0), id="nothing in flight"),
        pytest.param(lambda worker: saying(worker, state=WorkerState.FAILED), id="failed"),
        pytest.param(lambda worker: saying(worker, state=WorkerState.STARTING), id="starting"),
        pytest.param(broken, id="500"),
        pytest.param(not_json, id="not JSON"),
        pytest.param(forever, id="nothing at all"),
    ],
)
async def test_a_worker_that_does_not_say_that_it_works_is_silent(cluster, answer_load):
    [worker] = await cluster.workers("one")
    worker.behave = forever(worker)
    worker.answer_load = answer_load(worker)
    client = await cluster.client(worker, response_timeout_s=0.3, probe_timeout_s=5.0)
    with pytest.raises(SuspectImage, match="no response for 0.3 s"):
        await client.classify(b"1", "digits", timeout_s=20.0)
    assert worker.probes


async def test_the_deadline_ends_an_image_of_a_worker_that_goes_on_saying_that_it_works(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = forever(worker)
    client = await cluster.client(worker, response_timeout_s=0.2)
    with pytest.raises(DeadlineExceeded, match="after 1 attempts"):
        await client.classify(b"1", "digits", timeout_s=1.5)
    assert len(worker.requests) == 1


async def test_a_worker_that_stops_while_it_computes_is_still_found(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = forever(worker)
    client = await cluster.client(worker, response_timeout_s=0.3)
    call = asyncio.create_task(client.classify(b"1", "digits", timeout_s=20.0))
    await until(lambda: worker.probes >= 2)  # it was waited for twice
    worker.answer_load = forever(worker)
    with pytest.raises(SuspectImage, match="no response for 0.3 s"):
        await call
