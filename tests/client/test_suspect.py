"""An image on which a worker fell silent gets one more, and no third; against real servers."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from aiohttp import web
from tests.support.optional import not_none

from fingerpost.client.metrics import ClientMetrics
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
