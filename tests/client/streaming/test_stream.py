"""Streams: order, bounds, errors, and leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.errors import BrokenImage, ConfigurationError, EmptyImage, InvalidName


def images(count: int) -> list[bytes]:
    return [b"x" * (number + 1) for number in range(count)]


async def as_async(items):
    for each in items:
        yield each


@pytest.mark.parametrize("source", [list, iter, as_async], ids=["list", "iterator", "async"])
@pytest.mark.parametrize("ordered", [False, True])
async def test_every_image_gets_its_result(cluster, source, ordered):
    client = await cluster.client(*await cluster.workers("one", "two"))
    stream = client.stream(source(images(100)), model="digits", concurrency=8, ordered=ordered)
    results = [each async for each in stream]
    assert sorted(each.index for each in results) == list(range(100))
    assert all(each.label == str(each.index + 1) for each in results)
    if ordered:
        assert [each.index for each in results] == list(range(100))
    assert {each.worker for each in results} == {"one", "two"}


async def test_results_come_as_they_are_ready_and_in_order_when_asked(cluster):
    [worker] = await cluster.workers("one")
    second_done = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if len(body) == 1:
            await second_done.wait()
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    async with contextlib.aclosing(client.stream(images(2), model="digits")) as results:
        assert (await anext(results)).index == 1
        second_done.set()
        assert (await anext(results)).index == 0
    second_done.clear()
    stream = client.stream(images(2), model="digits", ordered=True)
    first = asyncio.create_task(anext(stream))
    await until(lambda: len(worker.bodies) == 3)
    assert not first.done()
    second_done.set()
    assert (await first).index == 0
    assert (await anext(stream)).index == 1
    await stream.aclose()


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_endless_source_is_read_no_further_than_the_window(cluster, ordered):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    seen = 0

    def endless():
        nonlocal seen
        while True:
            seen += 1
            yield b"image"

    stream = client.stream(endless(), model="digits", concurrency=4, ordered=ordered)
    async with contextlib.aclosing(stream) as results:
        for taken in range(1, 20):
            await anext(results)
            await until(lambda: client.stats.attempts == seen and worker.running == 0)
            assert seen <= taken + 8
    assert worker.most_running <= 4


async def test_a_failed_image_fails_alone(cluster):
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.StreamResponse:
        if len(await request.read()) == 3:
            return worker.refuse(BrokenImage("half of it"))
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    stream = client.stream([*images(4), b"", "/nowhere.png"], model="digits", ordered=True)
    results = [each async for each in stream]
    assert [type(each.error).__name__ for each in results] == [
        "NoneType",
        "NoneType",
        "BrokenImage",
        "NoneType",
        "EmptyImage",
        "ImageError",
    ]
    assert results[2].worker == "one"
    assert (results[5].key, results[5].attempts) == ("/nowhere.png", 0)
    with pytest.raises(EmptyImage):
        _ = results[4].label


async def test_on_error_raise_ends_the_stream(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    source = itertools.chain([b""], itertools.repeat(b"image"))
    with pytest.raises(EmptyImage):
        async for _ in client.stream(source, model="digits", on_error="raise"):
            pass
    await until(lambda: worker.running == 0)


async def test_an_error_of_the_source_is_the_callers_own(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)

    def source():
        yield b"image"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async for _ in client.stream(source(), model="digits"):
            pass


@pytest.mark.parametrize("how", ["break", "cancel", "close the client"])
async def test_leaving_early_leaves_nothing(cluster, how):
    workers = await cluster.workers("one", "two")
    client = await cluster.client(*workers)
    before = asyncio.all_tasks()
    got = asyncio.Event()

    async def consume() -> None:
        async for _ in client.stream(itertools.repeat(b"image"), model="digits"):
            got.set()
            if how == "break":
                break

    task = asyncio.create_task(consume())
    await got.wait()
    if how == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "break":
        await task
    else:
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed while it streamed"):
            await task
    await until(lambda: sum(each.running for each in workers) == 0)
    await client.aclose()
    mine = [each for each in asyncio.all_tasks() - before if "fingerpost/client" in repr(each)]
    assert mine == []


async def test_wrong_arguments_are_told_by_the_call_itself(cluster):
    client = await cluster.client()
    for options in ({"concurrency": 0}, {"on_error": "ignore"}, {"top": 0}):
        with pytest.raises(ConfigurationError):
            client.stream([], model="digits", **options)
    for one in (b"bytes", "path.png"):
        with pytest.raises(ConfigurationError, match="several images"):
            client.stream(one, model="digits")
    with pytest.raises(InvalidName):
        client.stream([], model="No such")


async def test_keys_come_back_with_the_results(cluster):
    client = await cluster.client(*await cluster.workers("one"))
    items = [("a", b"1"), (7, b"22"), b"333", ("c", b"")]
    results = [each async for each in client.stream(items, "digits", ordered=True)]
    assert [each.key for each in results] == ["a", "7", "2", "c"]
    assert [each.image_bytes for each in results] == [1, 2, 3, 0]
    with pytest.raises(ConfigurationError, match="not a tuple of 3"):
        async for _ in client.stream([(1, 2, 3)], "digits"):
            pass


async def test_a_consumer_that_pauses_stops_the_reading(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    read = 0

    async def source():
        nonlocal read
        for read in itertools.count(1):  # noqa: B007
            yield b"image"

    async with contextlib.aclosing(client.stream(source(), "digits")) as results:
        for taken in range(1, 300):
            await anext(results)
            if taken % 100 == 0:
                await until(lambda: worker.running == 0 and client.stats.attempts == read)
                assert read - taken <= 2 * 1024


async def test_a_hundred_thousand_images_in_constant_memory(tmp_path):
    import sys
    from pathlib import Path

    import psutil
    from tests.support.one_watch import OneWatch

    from fingerpost.client import Client
    from fingerpost.registry import Instance, ModelInfo, Snapshot

    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.client.tiny_worker",
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        port = int(await worker.stdout.readline())
        instance = Instance(
            id="tiny",
            service="digits",
            host="127.0.0.1",
            ports={"http": port},
            models=(ModelInfo(name="digits", versions=("1",)),),
        )

        async def poll(index, wait_s):
            if index:
                await asyncio.Event().wait()
            return Snapshot(
                service="digits", instances=(instance,), known=True, index=3, taken_at=0.0
            ), 3

        registry = OneWatch(poll)
        memory = psutil.Process().memory_info
        early = 0
        async with Client(registry=registry) as client:
            count = 0
            images = (b"%d" % number for number in range(100_000))
            async for result in client.stream(images, "digits"):
                assert result.error is None
                count += 1
                if count == 20_000:
                    early = memory().rss
            assert count == 100_000
            assert client.stats.lookups <= 20  # one each 26 s, and not one for an image
        assert memory().rss - early < 10_000_000
        await registry.aclose()
    finally:
        worker.terminate()
        await worker.wait()
        vars(worker)["_transport"].close()
