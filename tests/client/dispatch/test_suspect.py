"""An image on which a worker fell silent gets one more, and no third; against real servers."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from aiohttp import web
from tests.support.optional import not_none

from fingerpost.client.metrics import ClientMetrics
from fingerpost.client.wire import SUSPECT_HEADER
from fingerpost.errors import ImageError, SuspectImage

POISON = b"poison"


def hurt_by(worker, images=(POISON,)):
    """A worker that closes all its connections when it has read one of these images."""
    open_connections = []

    async def behave(request: web.Request) -> web.StreamResponse:
        connection = not_none(request.transport)
        open_connections.append(connection)
        try:
            if await request.read() in images:
                for each in open_connections:
                    each.abort()
            else:
                await asyncio.sleep(0.02)
            return await worker.answer(request)
        finally:
            open_connections.remove(connection)

    worker.behave = behave
    return worker


async def test_a_poisoned_image_reaches_two_workers_of_three(cluster, caplog):
    workers = [hurt_by(each) for each in await cluster.workers("one", "two", "three")]
    client = await cluster.client(*workers)
    with pytest.raises(SuspectImage, match="2 workers fell silent on this image") as caught:
        await client.classify(POISON, "digits")
    assert isinstance(caught.value, ImageError)
    assert not caught.value.retryable
    assert client.stats.attempts == 2
    assert client.stats.suspect_images == 1
    assert client.stats.retries == {"unreachable": 1}
    assert sum(len(each.requests) for each in workers) == 2
    [record] = [each for each in caplog.records if "is given up" in each.message]
    assert hashlib.sha256(POISON).hexdigest() in record.message
    counted = {
        one.name: one.samples[0].value for one in ClientMetrics(client).collect() if one.samples
    }
    assert counted["fingerpost_client_suspect_images"] == 1
    assert (await client.classify(b"fine", "digits")).attempts == 1


async def test_images_that_a_dying_worker_had_too_are_answered(cluster):
    """They get their second worker one after the other, so the poisoned one hurts each but once."""
    workers = [hurt_by(each) for each in await cluster.workers("one", "two", "three")]
    client = await cluster.client(*workers)
    images = [b"fine %d" % number for number in range(24)]
    images.insert(12, POISON)
    results = [each async for each in client.stream(images, "digits")]
    failed = {each.index: type(each.error) for each in results if each.error is not None}
    assert failed == {12: SuspectImage}
    assert all(each.attempts <= 2 for each in results)
    assert client.stats.suspect_images >= 1


async def test_a_worker_that_breaks_once_costs_nothing(cluster):
    workers = await cluster.workers("one", "two")
    hurt_by(workers[0])
    client = await cluster.client(*workers)
    results = [await client.classify(POISON, "digits") for _ in range(3)]
    assert all(each.worker == workers[1].instance.id for each in results)
    assert client.stats.suspect_images == len([each for each in results if each.attempts > 1])


async def test_suspects_wait_for_each_other_a_second_at_most(cluster):
    """A slow model's images are not sent one by one."""
    workers = await cluster.workers("one", "two")
    client = await cluster.client(*workers)
    broken = 0

    async def behave(request: web.Request) -> web.StreamResponse:
        nonlocal broken
        await request.read()
        if broken < 4:
            broken += 1
            not_none(request.transport).abort()
        await asyncio.sleep(2.0)
        return await workers[0].answer(request)

    for each in workers:
        each.behave = behave
    began = asyncio.get_running_loop().time()
    results = await asyncio.gather(
        *(client.classify(b"%d" % number, "digits") for number in range(4)), return_exceptions=True
    )
    answered = [each for each in results if not isinstance(each, SuspectImage)]
    assert asyncio.get_running_loop().time() - began < 4 * 2.0  # what one by one takes
    assert len(answered) >= 2


def taking_turns(worker):
    """A worker as `hurt_by`, which takes suspect images one at a time and says when it begins."""
    hurt_by(worker)
    worker.meta = {"fingerpost": "0.2.0"}
    worker.marks = []
    behave, turn = worker.behave, asyncio.Lock()

    async def one_at_a_time(request: web.Request) -> web.StreamResponse:
        worker.marks.append(request.headers.get(SUSPECT_HEADER))
        if SUSPECT_HEADER not in request.headers:
            return await behave(request)
        async with turn:
            not_none(request.transport).write(b"HTTP/1.1 102 Processing\r\n\r\n")
            return await behave(request)

    worker.behave = one_at_a_time
    return worker


async def test_what_a_worker_had_not_begun_with_did_not_stop_it(cluster):
    """Clients do not know of each other: their suspect images wait at the same worker."""
    workers = [taking_turns(each) for each in await cluster.workers("one", "two", "three")]
    clients = [await cluster.client(*workers) for _ in range(12)]
    for round_number in range(3):
        images = [b"fine %d %d" % (round_number, number) for number in range(len(clients))]
        images[5] = POISON
        results = await asyncio.gather(
            *(
                client.classify(image, "digits")
                for client, image in zip(clients, images, strict=True)
            ),
            return_exceptions=True,
        )
        failed = {number: type(each) for number, each in enumerate(results) if not_a_result(each)}
        assert failed == {5: SuspectImage}
        assert sum(POISON in each.bodies for each in workers) == 2
        for each in workers:
            each.bodies.clear()
    assert {mark for each in workers for mark in each.marks} == {None, "1"}


def not_a_result(each: object) -> bool:
    return isinstance(each, BaseException)


async def test_a_suspect_image_gets_no_third_worker_once_the_second_began_with_it(cluster):
    workers = [taking_turns(each) for each in await cluster.workers("one", "two", "three")]
    client = await cluster.client(*workers)
    with pytest.raises(SuspectImage, match="2 workers fell silent on this image"):
        await client.classify(POISON, "digits")
    assert [mark for each in workers for mark in each.marks] in ([None, "1"], ["1", None])


async def test_a_worker_that_dies_before_it_begins_with_an_image_does_not_accuse_it(cluster):
    workers = [taking_turns(each) for each in await cluster.workers("one", "two", "three")]
    client = await cluster.client(*workers)
    deaths = 0

    async def behave(request: web.Request) -> web.StreamResponse:
        nonlocal deaths
        await request.read()
        if deaths < 2:
            deaths += 1
            not_none(request.transport).abort()
        return await workers[0].answer(request)

    for each in workers:
        each.behave = behave
    assert (await client.classify(b"fine", "digits")).attempts == 3
    assert client.stats.suspect_images == 1
