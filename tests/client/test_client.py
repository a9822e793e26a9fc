"""Going on whatever workers and proxies do; against real servers on free ports."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from tests.support.one_watch import OneWatch
from tests.support.waiting import until

from fingerpost.client import Client, EjectionConfig
from fingerpost.errors import (
    ConfigurationError,
    InvalidName,
    NoWorker,
    RegistryUnreachable,
    UnknownModel,
    UnknownService,
)
from fingerpost.registry import WorkerState


async def test_classify_goes_straight_to_a_worker_and_tells_all_about_it(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    result = await client.classify(b"12345", "digits", top=1, timeout_s=7)
    assert (result.label, result.score) == ("5", 0.75)
    assert result.predictions == (("5", 0.75),)
    assert (result.model, result.version, result.worker) == ("digits", "1", "one")
    assert result.address == worker.instance.address
    assert (result.attempts, result.index, result.key) == (1, 0, "0")
    assert 0 < result.elapsed_s < 7
    assert worker.requests == ["/v1/classify/digits"]
    assert 0 < worker.deadlines_ms[0] <= 7000


async def test_no_lookup_is_made_for_an_image(cluster):
    workers = await cluster.workers("one", "two", "three")
    client = await cluster.client(*workers)
    for _ in range(50):
        await client.classify(b"123", "digits")
    assert client.stats.lookups <= 2  # the first poll, and the one that is held
    assert (client.stats.attempts, client.stats.bytes_sent) == (50, 150)
    assert client.stats.retries == {}


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 5_000_000])
async def test_large_images_arrive_whole(cluster, size):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    assert (await client.classify(b"x" * size, "digits")).label == str(size)


async def test_versions_and_aliases_go_to_the_workers_that_serve_them(cluster):
    old = await cluster.worker("old", version="2", aliases={"stable": "2"})
    new = await cluster.worker("new", version="3", aliases={"canary": "3"})
    client = await cluster.client(old, new)
    for _ in range(5):
        assert (await client.classify(b"1", "digits@3")).worker == "new"
        assert (await client.classify(b"1", "digits@stable")).worker == "old"
    assert set(new.requests) == {"/v1/classify/digits@3"}
    with pytest.raises(UnknownModel, match="versions are 2, 3 and its aliases canary, stable"):
        await client.classify(b"1", "digits@4")


async def test_resolve_and_services(cluster):
    old = await cluster.worker("old", version="2")
    new = await cluster.worker("new", version="3")
    client = await cluster.client(old, new)
    assert (await client.resolve("digits")).instances == (new.instance, old.instance)
    assert (await client.resolve("digits@3")).instances == (new.instance,)
    assert await client.services() == ("digits",)
    with pytest.raises(UnknownService, match="'flowers'"):
        await client.resolve("flowers")


async def test_a_load_report_that_says_draining_turns_requests_away(cluster):
    leaving, good = await cluster.workers("leaving", "good")
    leaving.state = WorkerState.DRAINING
    client = await cluster.client(leaving, good)
    for _ in range(40):
        await client.classify(b"1", "digits")
    assert len(leaving.requests) <= 1
    assert client.stats.retries == {}


async def test_a_new_worker_is_used_and_a_removed_one_finishes_its_request(cluster):
    old, new = await cluster.workers("old", "new")
    proxy = await cluster.proxy(old)
    client = cluster.client_of(proxy)
    let_go = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return await old.answer(request)

    old.behave = behave
    in_flight = asyncio.create_task(client.classify(b"1", "digits"))
    await until(lambda: old.running == 1)
    proxy.publish(new)
    await until(lambda: len(proxy.polls) == 3)
    for _ in range(10):
        assert (await client.classify(b"1", "digits")).worker == "new"
    let_go.set()
    result = await in_flight
    assert (result.worker, result.attempts) == ("old", 1)


async def test_it_waits_for_the_first_worker_of_a_known_service(cluster):
    proxy = await cluster.proxy()
    client = cluster.client_of(proxy)
    call = asyncio.create_task(client.classify(b"1", "digits"))
    await until(lambda: len(proxy.polls) == 2)
    assert not call.done()
    proxy.publish(await cluster.worker("one"))
    assert (await call).worker == "one"


async def test_no_worker_within_the_grace(cluster):
    client = await cluster.client(wait_for_ready_s=0.1)
    with pytest.raises(NoWorker, match="'digits' is known"):
        await client.classify(b"1", "digits")


async def test_an_unknown_service_is_told_at_once(cluster):
    client = await cluster.client()
    with pytest.raises(UnknownService, match="'flowers'"):
        await client.classify(b"1", "flowers")


async def test_the_next_proxy_answers_with_index_zero(cluster):
    one, two = await cluster.workers("one", "two")
    first, second = await cluster.proxy(one), await cluster.proxy(two)
    client = cluster.client_of(first, second)
    assert (await client.classify(b"1", "digits")).worker == "one"
    await until(lambda: len(first.polls) == 2)
    await first.server.stop()
    await until(lambda: second.polls)
    assert second.polls[0] == 0
    result = await client.classify(b"1", "digits")
    assert result.worker in {"one", "two"}
    await until(lambda: len(second.polls) == 2)
    assert (await client.classify(b"1", "digits")).worker == "two"


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=503, text='{"error":{"code":"registry","message":"","retryable":1}}'),
        web.Response(status=500, text="oops"),
        web.Response(status=200, text="<html>"),
    ],
    ids=["registry", "500", "html"],
)
async def test_a_proxy_that_fails_is_not_an_empty_answer(cluster, answer):
    [worker] = await cluster.workers("one")
    broken, good = await cluster.proxy(), await cluster.proxy(worker)
    broken.fail = answer
    client = cluster.client_of(broken, good)
    assert (await client.classify(b"1", "digits")).worker == "one"
    assert await client.services() == ("digits",)


async def test_no_proxy_at_all(cluster):
    proxy = await cluster.proxy()
    await proxy.server.stop()
    client = cluster.client_of(proxy, wait_for_ready_s=0.2)
    for _ in range(2):
        with pytest.raises(RegistryUnreachable, match=f"no proxy answered.*{proxy.server.port}"):
            await client.classify(b"1", "digits")
    with pytest.raises(RegistryUnreachable):
        await client.services()


async def test_a_proxy_that_comes_up_late_is_found(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)
    await proxy.server.stop()
    client = cluster.client_of(proxy, wait_for_ready_s=0.2)
    with pytest.raises(RegistryUnreachable):
        await client.classify(b"1", "digits")
    replacement = await cluster.proxy_at(proxy.server.port, worker)
    call = client.classify(b"1", "digits", timeout_s=20)
    while True:
        try:
            assert (await call).worker == "one"
            break
        except RegistryUnreachable:
            call = client.classify(b"1", "digits", timeout_s=20)
    assert replacement.polls


async def test_workers_outlive_all_proxies(cluster):
    [worker] = await cluster.workers("one")
    proxy = await cluster.proxy(worker)
    client = cluster.client_of(proxy)
    await client.classify(b"1", "digits")
    await proxy.server.stop()
    for _ in range(5):
        await client.classify(b"1", "digits")


async def test_cancelling_a_call_closes_its_connection_and_frees_the_worker(cluster):
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    worker.behave = behave
    client = await cluster.client(worker)
    call = asyncio.create_task(client.classify(b"1", "digits"))
    await until(lambda: worker.running == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: worker.server.connections == 0)
    worker.behave = None
    assert (await client.classify(b"1", "digits")).attempts == 1


async def test_a_closed_client_says_so(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    async with client:
        await client.classify(b"1", "digits")
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.classify(b"1", "digits")


def test_a_constructor_does_no_io_and_checks_what_it_is_given():
    Client()
    Client("http://proxy:12480", "https://other")
    for wrong in ("proxy", "ftp://proxy", "http://proxy/path", "http://", "http://a:b"):
        with pytest.raises(ConfigurationError, match="not a valid proxy URL|registry URL"):
            Client(wrong)
    with pytest.raises(ConfigurationError, match="either"):
        Client("http://proxy:12480", registry="consul://127.0.0.1:8500")
    with pytest.raises(ConfigurationError, match="registry URL"):
        Client(registry="nonsense")
    with pytest.raises(ConfigurationError, match="base_ejection_s=-1"):
        EjectionConfig(base_ejection_s=-1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "Digits"}, InvalidName),
        ({"model": "digits@"}, InvalidName),
        ({"model": "digits", "top": 0}, ConfigurationError),
        ({"model": "digits", "timeout_s": 0}, ConfigurationError),
    ],
)
async def test_wrong_arguments_are_told_before_any_call(arguments, error):
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(error):
            await client.classify(b"1", **arguments)


async def test_a_registry_instead_of_a_proxy_stays_its_owners(cluster):
    from fingerpost.registry import Snapshot

    [worker] = await cluster.workers("one")

    async def poll(index, wait_s):
        if index:
            await asyncio.Event().wait()
        snapshot = Snapshot(
            service="digits", instances=(worker.instance,), known=True, index=3, taken_at=0.0
        )
        return snapshot, 3

    registry = OneWatch(poll)
    async with Client(registry=registry) as client:
        assert (await client.classify(b"1", "digits")).worker == "one"
        assert await client.services() == ("digits",)
    assert not registry.closed
    await registry.aclose()
