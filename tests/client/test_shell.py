"""Uploads, sources that can be read once, pools, probes and hedges; against real sockets."""

from __future__ import annotations

import asyncio
import io
import os
import threading

import msgspec
import pytest
from aiohttp import web
from tests.support.forwarder import Forwarder
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.client import Client
from fingerpost.errors import BrokenImage, Draining, ImageError, Unreachable, UnsupportedImage

MB = 1_000_000


def through(client_of, proxy, worker, port: int, **config) -> Client:
    """A client that reaches a worker only by way of another port."""
    proxy.instances = [msgspec.structs.replace(worker.instance, ports={"http": port})]
    proxy.index += 1
    return client_of(proxy, **config)


async def test_a_slow_upload_that_moves_is_not_killed(cluster):
    [worker] = await cluster.workers("one")
    async with Forwarder(worker.server.port, bytes_per_s=8 * MB) as forwarder:
        client = through(
            cluster.client_of, await cluster.proxy(), worker, forwarder.port,
            upload_stall_timeout_s=0.5, response_timeout_s=1.5, connect_timeout_s=0.5,
        )  # fmt: skip
        result = await client.classify(b"x" * 20 * MB, "digits")
        assert result.label == str(20 * MB)
        assert result.attempts == 1
        assert result.elapsed_s > 2
        await client.aclose()


async def test_an_upload_that_stands_still_is_sent_elsewhere(cluster):
    stuck, good = await cluster.workers("stuck", "good")
    async with Forwarder(stuck.server.port) as forwarder:
        forwarder.stopped = True
        proxy = await cluster.proxy(good)
        proxy.instances.append(
            msgspec.structs.replace(stuck.instance, ports={"http": forwarder.port})
        )
        client = cluster.client_of(proxy, upload_stall_timeout_s=0.2)
        retried = False
        while not retried:
            result = await client.classify(b"x" * 20 * MB, "digits")
            assert result.worker == "good"
            retried = result.retried == ("unreachable",)
        await client.aclose()


async def pieces(*chunks: bytes):
    for each in chunks:
        yield each


class Pipe(io.RawIOBase):
    """A file object that cannot seek."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pieces(b"123", b"4567"),
        lambda: iter([b"123", b"4567"]),
        lambda: Pipe(b"1234567"),
        lambda: io.BytesIO(b"1234567"),
    ],
    ids=["async iterator", "iterator", "pipe", "file"],
)
async def test_file_objects_and_iterators_are_sent(cluster, make):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    result = await client.classify(make(), "digits")
    assert (result.label, result.image_bytes) == ("7", 7)
    assert worker.bodies == [b"1234567"]


async def test_a_source_that_can_be_read_once_is_retried_while_nothing_was_read(cluster):
    gone, good = await cluster.workers("gone", "good")
    await gone.server.stop()
    client = await cluster.client(gone, good)
    retried = 0
    while not retried:
        result = await client.classify(pieces(b"12", b"34"), "digits")
        assert result.label == "4"
        retried = result.attempts - 1


async def test_and_not_any_more_once_it_was_begun(cluster):
    workers = await cluster.workers("one", "two")

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        not_none(request.transport).abort()
        return web.Response()

    for each in workers:
        each.behave = behave
    client = await cluster.client(*workers)
    with pytest.raises(Unreachable) as caught:
        await client.classify(pieces(b"12", b"34"), "digits")
    assert "only once" in caught.value.__notes__[0]
    assert client.stats.attempts == 1


async def test_an_error_of_the_source_is_an_image_error(cluster):
    async def broken():
        yield b"12"
        raise KeyError("mine")

    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    with pytest.raises(ImageError, match="KeyError.*mine") as caught:
        await client.classify(broken(), "digits")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(UnsupportedImage, match="rb"):
        await client.classify(io.StringIO("text"), "digits")
    with pytest.raises(UnsupportedImage):
        await client.classify(object(), "digits")
    assert (await client.classify(b"1", "digits")).attempts == 1


async def test_a_pool_is_closed_when_its_worker_goes_but_not_under_a_request(cluster):
    old, new = await cluster.workers("old", "new")
    proxy = await cluster.proxy(old)
    client = cluster.client_of(proxy)
    await client.classify(b"1", "digits")
    let_go = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await old.answer(request)

    old.behave = behave
    in_flight = asyncio.create_task(client.classify(b"12", "digits"))
    await until(lambda: old.running == 1)
    proxy.publish(new)
    await until(lambda: len(proxy.polls) == 3)
    assert (await client.classify(b"1", "digits")).worker == "new"
    assert old.server.connections == 1
    let_go.set()
    assert (await in_flight).worker == "old"
    await until(lambda: old.server.connections == 0)


async def test_idle_workers_are_asked_for_their_load_and_a_lone_one_is_not(cluster):
    workers = await cluster.workers("one", "two", "three")
    client = await cluster.client(*workers)
    await client.classify(b"1", "digits")
    # The timer goes on for some seconds after the last request.
    await until(lambda: all(each.probes >= 2 for each in workers))
    assert client.stats.probes >= 6
    [lone] = await cluster.workers("lone")
    client = await cluster.client(lone)
    for _ in range(20):
        await client.classify(b"1", "digits")
    assert client.stats.probes == 0


async def test_a_probe_that_says_draining_saves_an_upload(cluster):
    leaving, good = await cluster.workers("leaving", "good")
    client = await cluster.client(leaving, good)
    await client.classify(b"1", "digits")
    leaving.state = leaving.state.DRAINING
    probes = leaving.probes
    await until(lambda: leaving.probes > probes)
    await client.classify(b"1", "digits")  # the answer to the probe may be under way
    seen = len(leaving.requests)
    for _ in range(20):
        assert (await client.classify(b"1", "digits")).worker == "good"
    assert len(leaving.requests) == seen


async def test_a_late_answer_is_hedged_and_the_loser_is_cancelled(cluster):
    workers = await cluster.workers("one", "two")
    client = await cluster.client(*workers, hedge=True)
    for _ in range(60):
        await client.classify(b"1", "digits")
    before = client.stats.hedges
    late = asyncio.Event()
    first: list[str] = []

    def hanging(worker):
        async def behave(request: web.Request) -> web.StreamResponse:
            await request.read()
            first.append(worker.name)
            if len(first) == 1:
                await late.wait()
            return await worker.answer(request)

        return behave

    for each in workers:
        each.behave = hanging(each)
    result = await client.classify(b"12", "digits")
    assert result.attempts == 2
    assert [result.worker] == first[1:]
    assert client.stats.hedges == before + 1
    await until(lambda: sum(each.running for each in workers) == 0)
    assert client.stats.retries == {}


async def test_a_hedge_does_not_hide_an_error(cluster):
    workers = await cluster.workers("one", "two")
    client = await cluster.client(*workers, hedge=True)

    for each in workers:
        each.behave = lambda request, each=each: refuse(each)

    async def refuse(worker):
        return worker.refuse(BrokenImage("half of it"))

    with pytest.raises(BrokenImage):
        await client.classify(b"12", "digits")
    workers[0].behave = lambda request: leave(workers[0])

    async def leave(worker):
        return worker.refuse(Draining("leaving"))

    workers[1].behave = None
    assert (await client.classify(b"12", "digits")).worker == "two"


async def test_the_same_word_goes_to_the_same_worker(cluster):
    workers = await cluster.workers("one", "two", "three")
    client = await cluster.client(*workers)
    for word in ("a", "b", "c", "d", "e", "f", "g", "h"):
        chosen = {(await client.classify(b"1", "digits", sticky=word)).worker for _ in range(5)}
        assert len(chosen) == 1
    results = [await client.classify(b"1", "digits", sticky=str(n)) for n in range(40)]
    assert len({each.worker for each in results}) == 3


async def test_a_named_pipe_is_read_once_in_a_thread(cluster, tmp_path):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"x" * 300_000,))
    writer.start()
    with path.open("rb", buffering=0) as pipe:
        result = await client.classify(pipe, "digits")
    writer.join()
    assert result.label == "300000"
