"""Workers that slow down, stop, vanish and come back, under load: no image fails."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from aiohttp import web
from tests.support.forwarder import Forwarder
from tests.support.waiting import until

from fingerpost.client import Client, EjectionConfig, RetryConfig, RoutingConfig

pytestmark = pytest.mark.alone


class Load:
    """Classifies one image after another on so many connections, and notes what came."""

    def __init__(self, client: Client, connections: int = 8) -> None:
        self.client = client
        self.results: list = []
        self.errors: list[BaseException] = []
        self._ending = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(connections)]

    async def _run(self) -> None:
        while not self._ending:
            try:
                self.results.append(await self.client.classify(b"x" * 20_000, "digits"))
            except Exception as error:
                self.errors.append(error)
                return

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait for so many more results, or an error."""
        wanted = len(self.results) + count
        await until(lambda: len(self.results) >= wanted or self.errors)

    def shares(self, since: int = 0) -> Counter[str]:
        return Counter(each.worker for each in self.results[since:])


@pytest.fixture
def load():
    loads: list[Load] = []

    def start(client: Client, connections: int = 8) -> Load:
        loads.append(Load(client, connections))
        return loads[-1]

    yield start
    assert all(not each.errors for each in loads)


def working(worker, seconds: float, slots: int = 4):
    """Answers after so long, `slots` at a time."""
    places = asyncio.Semaphore(slots)
    worker.service_s = seconds

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        async with places:
            await asyncio.sleep(worker.service_s)
        return await worker.answer(request)

    return behave


async def test_a_slow_worker_loses_its_share_and_gets_it_back(cluster, load):
    workers = await cluster.workers("one", "two", "three", "slow")
    for each in workers:
        each.behave = working(each, 0.02)
    client = await cluster.client(*workers)
    under_load = load(client)
    await until(lambda: len(under_load.results) >= 400)
    assert under_load.shares()["slow"] > 50
    clock = asyncio.get_running_loop().time
    workers[3].service_s = 0.2
    slowed_at = clock()
    seen = len(under_load.results)
    # Under 5 % of its fair share of a quarter, within 5 s.
    while True:
        await until(lambda seen=seen: len(under_load.results) >= seen + 320)
        if under_load.shares(seen)["slow"] <= 0.05 * 320 / 4:
            break
        assert clock() - slowed_at < 5
        seen = len(under_load.results)
    workers[3].service_s = 0.02
    recovered_at = clock()
    seen = len(under_load.results)
    while True:
        await until(lambda seen=seen: len(under_load.results) >= seen + 160)
        if under_load.shares(seen)["slow"] >= 0.8 * 160 / 4:
            break
        assert clock() - recovered_at < 30
        seen = len(under_load.results)
    await under_load.end()
    assert all(each.attempts == 1 for each in under_load.results)


async def test_a_killed_worker_comes_back_on_another_port(cluster, load):
    workers = await cluster.workers("one", "two", "three")
    for each in workers:
        each.behave = working(each, 0.01)
    proxy = await cluster.proxy(*workers)
    client = cluster.client_of(proxy)
    under_load = load(client)
    await until(lambda: len(under_load.results) >= 200)
    killed = workers[2]
    await killed.server.stop()
    await until(lambda: under_load.client.stats.retries)
    await under_load.more(200)
    again = await cluster.worker("replacement")
    killed.server, killed.boot_id = again.server, again.boot_id
    again.behave = working(again, 0.01)
    proxy.publish(*workers)
    await until(lambda: "three" in under_load.shares(-50) or under_load.errors)
    await under_load.end()
    assert len(client.stats.retries) <= 2
    assert sum(client.stats.retries.values()) <= 0.2 * len(under_load.results) + 10


@pytest.mark.parametrize("kind", ["stopped", "half-open"])
async def test_a_silent_worker_is_left_long_before_its_silence_is_over(cluster, load, kind):
    workers = await cluster.workers("one", "two", "three")
    for each in workers:
        each.behave = working(each, 0.01)
    async with Forwarder(workers[2].server.port) as forwarder:
        proxy = await cluster.proxy()
        instances = [each.instance for each in workers]

        instances[2] = msgspec.structs.replace(instances[2], ports={"http": forwarder.port})
        proxy.instances = instances
        proxy.index += 1
        client = cluster.client_of(proxy, probe_timeout_s=0.5, response_timeout_s=20.0)
        under_load = load(client)
        await until(lambda: "three" in under_load.shares(-50))
        if kind == "stopped":
            forwarder.stopped = True
        else:
            forwarder.hole.set()
        await until(lambda: client.stats.unresponsive or under_load.errors)
        await under_load.more(100)
        await under_load.end()
        assert max(each.elapsed_s for each in under_load.results) < 5
        assert "unreachable" in client.stats.retries
        await client.aclose()


async def test_a_worker_that_fails_fast_gets_no_more_than_its_trials(cluster, load):
    workers = await cluster.workers("one", "two", "bad")
    for each in workers[:2]:
        each.behave = working(each, 0.01)

    async def behave(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="oops")

    workers[2].behave = behave
    client = await cluster.client(*workers)
    under_load = load(client)
    await until(lambda: len(under_load.results) >= 600)
    await under_load.end()
    assert len(workers[2].requests) <= 10


async def test_retries_wait_for_their_budget(cluster):
    workers = await cluster.workers("one", "two")
    failing = True

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if failing and len(body) == 7:
            return web.Response(text="oops")
        return await workers[0].answer(request)

    for each in workers:
        each.behave = behave
    routing = RoutingConfig(
        retries=RetryConfig(budget_min_per_s=0.1, budget_share=0.0, max_attempts=100),
        ejection=EjectionConfig(consecutive_failures=10_000, min_success_rate=1e-9),
    )
    client = await cluster.client(*workers, routing=routing)
    call = asyncio.create_task(client.classify(b"1234567", "digits", timeout_s=20))
    await until(lambda: client.stats.retries == {"bad_answer": 3})
    # One in ten seconds was allowed, and one over that: the next one has to wait for a second.
    assert (await client.classify(b"1", "digits")).attempts == 1
    await asyncio.sleep(0.3)
    assert client.stats.retries == {"bad_answer": 3}
    failing = False
    assert (await call).attempts == 4


async def test_many_images_that_one_bad_worker_failed_at_once_do_not_wait_for_the_deadline(cluster):
    workers = await cluster.workers("good", "bad")

    async def cut(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(0.1)  # so that all are sent before the first one fails
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    workers[1].behave = cut
    client = await cluster.client(*workers)
    calls = (client.classify(b"1234567", "digits", timeout_s=8) for _ in range(120))
    results = await asyncio.gather(*calls)
    assert {each.worker for each in results} == {"good"}
    # By the budget, which is 0.2 x 120 + 10, the others would wait for 10 s.
    assert sum(client.stats.retries.values()) >= 50
