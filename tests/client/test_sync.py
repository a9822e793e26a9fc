"""The synchronous twin, against servers in another thread's event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.waiting import until

from fingerpost.client import Client, SyncClient
from fingerpost.errors import ConfigurationError, EmptyImage, UnknownService


def runners() -> int:
    return sum(each.name == "fingerpost client" for each in threading.enumerate())


async def test_the_same_methods(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    def use() -> None:
        with SyncClient(proxy.url) as client:
            assert client.classify(b"123", "digits").label == "3"
            assert client.resolve("digits").instances == (worker.instance,)
            assert client.services() == ("digits",)
            assert client.stats.attempts == 1
            with pytest.raises(UnknownService):
                client.classify(b"1", "flowers")
            with pytest.raises(EmptyImage):
                client.classify(b"", "digits")
            with pytest.raises(ConfigurationError):
                client.stream([], model="digits", concurrency=0)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.classify(b"1", "digits")

    await asyncio.to_thread(use)
    assert runners() == 0


async def test_several_threads_share_one_client(cluster):
    proxy = await cluster.proxy(*await cluster.workers("one", "two"))

    def use() -> None:
        with SyncClient(proxy.url) as client, ThreadPoolExecutor(8) as pool:
            labels = pool.map(
                lambda size: client.classify(b"x" * size, "digits").label, range(1, 101)
            )
            assert list(labels) == [str(size) for size in range(1, 101)]
            assert client.stats.lookups <= 2

    await asyncio.to_thread(use)
    assert runners() == 0


@pytest.mark.parametrize("ordered", [False, True])
async def test_stream_reads_in_the_calling_thread_and_no_further_than_the_window(cluster, ordered):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    def use() -> None:
        here = threading.get_ident()
        read = 0

        def endless():
            nonlocal read
            for read in itertools.count(1):
                assert threading.get_ident() == here
                yield b"x" * read

        with SyncClient(proxy.url) as client:
            stream = client.stream(endless(), model="digits", concurrency=4, ordered=ordered)
            for taken, result in enumerate(itertools.islice(stream, 40), start=1):
                assert result.label == str(result.index + 1)
                assert not ordered or result.index == taken - 1
                assert read <= taken + 8
            stream.close()

    await asyncio.to_thread(use)
    assert worker.most_running <= 4
    assert runners() == 0


async def test_stream_of_a_few(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    def use() -> None:
        with SyncClient(proxy.url) as client:
            assert list(client.stream([], model="digits")) == []
            results = list(client.stream([b"1", b"", b"333"], model="digits", ordered=True))
            assert [type(each.error) for each in results] == [type(None), EmptyImage, type(None)]
            with pytest.raises(EmptyImage):
                list(client.stream([b"1", b""], model="digits", on_error="raise"))

    await asyncio.to_thread(use)


async def test_closing_ends_a_call_that_waits_in_another_thread(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    async def behave(request):
        await asyncio.Event().wait()

    worker.behave = behave
    client = SyncClient(proxy.url)
    call = asyncio.create_task(asyncio.to_thread(client.classify, b"1", "digits"))
    await until(lambda: worker.running == 1)
    await asyncio.to_thread(client.close)
    with pytest.raises(RuntimeError, match="closed during this call"):
        await call
    assert runners() == 0


async def test_a_client_that_nobody_holds_ends_its_thread_and_connections(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)

    def use() -> None:
        client = SyncClient(proxy.url)
        client.classify(b"1", "digits")
        stream = client.stream([b"1"] * 10, "digits")
        next(stream)
        del client, stream
        gc.collect()

    await asyncio.to_thread(use)
    await until(lambda: runners() == 0)
    await until(lambda: worker.server.connections == 0)


@pytest.mark.parametrize("name", ["__init__", "classify", "resolve", "services", "stream"])
def test_the_same_arguments(name):
    """The order of those that are given by their names does not matter."""

    def order(each: inspect.Parameter) -> str:
        return each.name if each.kind is inspect.Parameter.KEYWORD_ONLY else ""

    ours, theirs = (
        [
            (each.name, each.kind, each.default)
            for each in sorted(
                inspect.signature(getattr(kind, name)).parameters.values(), key=order
            )
        ]
        for kind in (SyncClient, Client)
    )
    assert ours == theirs
