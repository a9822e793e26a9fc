"""Through real proxies that relay, on real sockets."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image
from tests.support.optional import not_none

from fingerpost.client import ClientConfig, SyncClient
from fingerpost.client.tracing import Tracing
from fingerpost.errors import (
    BrokenImage,
    DeadlineExceeded,
    NoWorker,
    Overloaded,
    RegistryUnreachable,
    SuspectImage,
    Unauthorized,
    UnknownModel,
    UnknownService,
)
from fingerpost.registry import WorkerState


async def relayed_bytes(proxy):
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{proxy.url}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    [line] = [each for each in lines if each.startswith("fingerpost_proxy_relayed_bytes_total ")]
    return float(line.split()[1])


async def test_images_are_spread_over_the_proxies_and_workers(relays):
    workers = {name: await relays.add(name) for name in ("one", "two")}
    proxies = [await relays.proxy(2), await relays.proxy(2)]
    client = relays.client(*proxies)
    images = [b"x" * (1000 + number) for number in range(60)]
    results = [each async for each in client.stream(images, "digits", concurrency=8, ordered=True)]
    assert [each.label for each in results] == [str(len(each)) for each in images]
    assert {each.relay for each in results} == {
        each.url.removeprefix("http://") for each in proxies
    }
    assert {each.worker for each in results} == set(workers)
    assert all(each.address == workers[each.worker].instance.address for each in results)
    total = sum(map(len, images))
    assert (client.stats.bytes_sent, client.stats.bytes_relayed) == (0, total)
    assert [await relayed_bytes(each) for each in proxies] != [0, total]
    assert sum([await relayed_bytes(each) for each in proxies]) == total
    assert client.stats.probes == sum(each.probes for each in workers.values()) == 0
    assert client.stats.lookups <= 2


async def test_an_older_proxy_names_no_worker(cluster, relays):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)
    proxy.relay = worker.answer
    result = await relays.client(proxy.url).classify(b"123", "digits")
    assert (result.worker, result.address) == ("", "")
    assert result.relay == proxy.url.removeprefix("http://")


async def test_straight_to_a_worker_there_is_no_relay(cluster):
    client = await cluster.client(await cluster.worker("one"))
    assert (await client.classify(b"123", "digits")).relay == ""
    assert (client.stats.bytes_sent, client.stats.bytes_relayed) == (3, 0)


async def test_versions_aliases_and_what_nobody_serves(relays):
    await relays.add("old", version="2", aliases={"stable": "2"})
    await relays.add("new", version="3", aliases={"canary": "3"})
    client = relays.client(await relays.proxy(2), await relays.proxy(2))
    for _ in range(5):
        assert (await client.classify(b"1", "digits@3")).worker == "new"
        assert (await client.classify(b"1", "digits@stable")).worker == "old"
    assert {each.id for each in (await client.resolve("digits")).instances} == {"old", "new"}
    with pytest.raises(UnknownModel, match="versions are 2, 3 and its aliases canary, stable"):
        await client.classify(b"1", "digits@4")
    with pytest.raises(UnknownService, match="'flowers'"):
        await client.classify(b"1", "flowers")


async def test_a_proxy_whose_relay_is_off_is_left_out(relays):
    await relays.add("one")
    off, on = await relays.proxy(1, relay=False), await relays.proxy(1)
    client = relays.client(off, on)
    results = [await client.classify(b"x" * 1000, "digits") for _ in range(20)]
    assert {each.relay for each in results} == {on.url.removeprefix("http://")}
    assert client.stats.retries in ({}, {"unauthorized": 1})
    assert client.stats.stale_addresses == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_no_proxy_relays(relays, count):
    await relays.add("one")
    client = relays.client(*[await relays.proxy(1, relay=False) for _ in range(count)])
    for _ in range(2):
        before = time.monotonic()
        with pytest.raises(
            Unauthorized, match=r"127\.0\.0\.1:\d+ does not relay images: .*--relay"
        ):
            await client.classify(b"x" * 2_000_000, "digits")
        assert time.monotonic() - before < 5


async def test_a_stranger_relays_nothing(cluster, relays):
    proxy = await cluster.proxy(*await cluster.workers("one"))
    with pytest.raises(Unauthorized, match="HTTP 404 .*start the proxy with --relay, or use one"):
        await relays.client(proxy.url).classify(b"1", "digits")


async def test_a_proxy_that_is_gone_is_left_out(relays):
    await relays.add("one")
    proxies = [await relays.proxy(1), await relays.proxy(1)]
    client = relays.client(*proxies)
    while client.stats.bytes_relayed < 10_000:
        await client.classify(b"x" * 1000, "digits")
    await relays.stop(proxies[0])
    results = [await client.classify(b"1", "digits") for _ in range(40)]
    assert {each.relay for each in results} == {proxies[1].url.removeprefix("http://")}
    assert client.stats.retries.get("unreachable", 0) <= 2
    assert client.stats.ejections <= 2


async def test_a_proxy_that_reaches_no_worker_is_left_out(cluster, relays):
    gone, good = await cluster.workers("gone", "good")
    await gone.server.stop()
    lonely = await relays.proxy(registry=f"static://{gone.instance.address}?model=digits")
    fine = await relays.proxy(registry=f"static://{good.instance.address}?model=digits")
    client = relays.client(lonely, fine)
    results = [await client.classify(b"1", "digits") for _ in range(20)]
    assert {each.relay for each in results} == {fine.url.removeprefix("http://")}
    assert client.stats.retries in ({}, {"no_worker": 1})
    with pytest.raises(DeadlineExceeded, match="no worker accepted a connection") as caught:
        await relays.client(lonely).classify(b"1", "digits", timeout_s=0.3)
    assert isinstance(caught.value.__cause__, NoWorker)


async def test_known_and_nobody_there(cluster, relays):
    proxy = await cluster.proxy()
    with pytest.raises(NoWorker, match="start one"):
        await relays.client(proxy.url, wait_for_ready_s=0.1).classify(b"1", "digits")
    assert proxy.relayed == 0


async def test_no_proxy_at_all(relays):
    with pytest.raises(RegistryUnreachable, match="no proxy answered"):
        await relays.client("http://127.0.0.1:9", wait_for_ready_s=0.2).classify(b"1", "digits")


async def test_a_list_that_is_behind_is_no_last_word(cluster, relays):
    [worker] = await cluster.workers("one")
    behind, ahead = await cluster.proxy(worker), await cluster.proxy(worker)

    async def unknown(request):
        return worker.refuse(UnknownModel("no worker serves digits@1"))

    behind.relay, ahead.relay = unknown, worker.answer
    client = relays.client(behind.url, ahead.url)
    while not client.stats.retries:
        await client.classify(b"123", "digits@1")
    assert client.stats.retries == {"unknown_model": 1}
    ahead.relay = unknown
    with pytest.raises(UnknownModel):
        await client.classify(b"123", "digits@1")


async def test_one_overloaded_worker_holds_nobody_up(relays):
    full, free = await relays.add("full"), await relays.add("free")

    async def refuse(request):
        return full.refuse(Overloaded("full"), Retry_After="30")

    full.behave = refuse
    client = relays.client(await relays.proxy(2))
    results = [await client.classify(b"1", "digits", timeout_s=10) for _ in range(3)]
    assert {each.worker for each in results} == {"free"}
    assert client.stats.retries["overloaded"] == len(full.requests) >= 1
    free.behave = refuse
    with pytest.raises(DeadlineExceeded, match="full") as caught:
        await client.classify(b"1", "digits", timeout_s=0.3)
    assert isinstance(caught.value.__cause__, Overloaded)


async def test_a_refusal_that_comes_before_the_image_arrives_whole(relays):
    full = await relays.add("full")

    async def refuse(request):
        response = full.refuse(Overloaded("full by its headers"))
        response.force_close()
        return response

    full.behave = refuse
    client = relays.client(await relays.proxy(1))
    with pytest.raises(DeadlineExceeded) as caught:
        await client.classify(b"x" * 20_000_000, "digits", timeout_s=0.5)
    assert isinstance(caught.value.__cause__, Overloaded)


async def test_an_image_that_ends_workers_is_given_up(relays):
    worker = await relays.add("one")

    async def abort(request):
        await request.read()
        request.transport.abort()
        return web.Response()

    worker.behave = abort
    client = relays.client(await relays.proxy(1))
    with pytest.raises(SuspectImage, match="2 workers fell silent .* after 1,000 bytes"):
        await client.classify(b"x" * 1000, "digits")
    assert len(worker.requests) == 2
    assert client.stats.suspect_images == 1
    assert client.stats.ejections == 0  # it was not the proxy


async def test_a_slow_model_behind_a_relay_is_waited_for_and_runs_once(relays):
    worker = await relays.add("one")
    heads = []

    async def slowly(request):
        heads.append(request.headers)
        await asyncio.sleep(1.3)
        return await worker.answer(request)

    worker.behave = slowly
    client = relays.client(await relays.proxy(1), response_timeout_s=0.3, probe_timeout_s=0.2)
    assert (await client.classify(b"1", "digits")).attempts == 1
    assert len(worker.requests) == 1
    assert "Fingerpost-Waited-Ms" not in heads[0]


async def test_an_overloaded_worker_behind_a_relay_hears_how_long_an_image_has_waited(relays):
    worker = await relays.add("one")
    waited_ms = []

    async def refuse_thrice(request):
        waited_ms.append(request.headers.get("Fingerpost-Waited-Ms"))
        if len(waited_ms) <= 3:
            return worker.refuse(Overloaded("full"), Retry_After="0")
        return await worker.answer(request)

    worker.behave = refuse_thrice
    client = relays.client(await relays.proxy(1))
    await client.classify(b"1", "digits")
    assert waited_ms[0] is None
    assert [int(each) for each in waited_ms[1:]] == sorted(int(each) for each in waited_ms[1:])
    assert int(waited_ms[-1]) > 0


async def test_a_broken_image_is_not_sent_again(relays):
    worker = await relays.add("one")

    async def refuse(request):
        await request.read()
        return worker.refuse(BrokenImage("cut off"))

    worker.behave = refuse
    client = relays.client(await relays.proxy(1), await relays.proxy(1))
    [result] = [each async for each in client.stream([b"1"], "digits")]
    assert isinstance(result.error, BrokenImage)
    assert (result.worker, result.attempts) == ("one", 1)


async def test_what_workers_say_of_themselves_is_not_said_of_the_proxy(relays):
    leaving, _ = await relays.add("leaving"), await relays.add("good")
    leaving.state = WorkerState.DRAINING
    client = relays.client(await relays.proxy(2))
    results = [await client.classify(b"1", "digits") for _ in range(10)]
    assert {each.worker for each in results} == {"leaving", "good"}
    assert client.stats.ejections == 0


async def test_sources_that_can_be_read_only_once(relays):
    await relays.add("one")
    client = relays.client(await relays.proxy(1))

    async def pieces():
        for _ in range(30):
            yield b"x" * 10_000

    assert (await client.classify(pieces(), "digits")).label == "300000"
    assert client.stats.bytes_relayed == 300_000


async def test_shrunk_images_and_traces(relays):
    worker = await relays.add("one", meta={"image": "16x16x3"})
    traces = []

    async def behave(request):
        traces.append(request.headers["traceparent"])
        return await worker.answer(request)

    worker.behave = behave
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    client = relays.client(await relays.proxy(1), tracing=Tracing(provider))
    file = io.BytesIO()
    Image.effect_noise((200, 100), 50).save(file, "PNG")
    result = await client.classify(file.getvalue(), "digits", shrink=True)
    assert result.image_bytes == len(worker.bodies[0]) < len(file.getvalue()) / 4
    assert client.stats.bytes_relayed + client.stats.bytes_spared == len(file.getvalue())
    [span] = kept.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["fingerpost.worker"] == "one"
    assert span.attributes["fingerpost.relay"] == result.relay
    assert traces[0].split("-")[2] == f"{not_none(span.context).span_id:016x}"


async def test_the_blocking_client(relays):
    await relays.add("one")
    proxy = await relays.proxy(1)

    def use():
        with SyncClient(proxy.url, config=ClientConfig(relay=True)) as client:
            assert client.classify(b"123", "digits").relay == proxy.url.removeprefix("http://")
            assert [each.label for each in client.stream([b"1", b"12"], "digits")]
            assert client.stats.bytes_relayed == 6

    await asyncio.to_thread(use)


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "IMAGE", "--model", "digits", "--json"],
        ["stream", "IMAGE", "--model", "digits", "--out", "OUT", "--json"],
        ["bench", "digits", "--seconds", "0.2", "--warm-up", "0", "--json", "-"],
    ],
    ids=lambda each: each[0],
)
async def test_the_commands(relays, tmp_path, command: list[str]):
    worker = await relays.add("one")
    proxy = await relays.proxy(1)
    image = tmp_path / "image.png"
    image.write_bytes(b"x" * 100)
    names = {"IMAGE": str(image), "OUT": str(tmp_path / "out.jsonl")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fingerpost.deploy.cli",
        *(names.get(each, each) for each in command), "--relay", "--proxy", proxy.url,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    told, _ = await process.communicate()
    assert process.returncode == 0
    assert worker.instance.address in told.decode()
    assert await relayed_bytes(proxy) == sum(map(len, worker.bodies)) > 0
