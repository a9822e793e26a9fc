"""Services that come and go: a proxy forgets them, and they keep no new one out."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.proxy.world import FakeWorker, World, instance
from tests.support.waiting import until

SOON = pytest.mark.parametrize("world", [{"forget_after_s": 0.3}], indirect=True)


async def come_and_go(world: World, *services: str) -> None:
    """Register a worker of each service, wait until the proxy knows it, and end them all."""
    worker = FakeWorker()
    await worker.start()
    entries = await asyncio.gather(
        *(
            world.registry.register(instance(f"{name}-1", worker.port, service=name))
            for name in services
        )
    )

    async def known() -> bool:
        return set(services) <= await names(world)

    await until(known, within_s=60)
    await worker.stop()  # or it would be retained: it still answers
    for entry in entries:
        await entry.deregister()

    async def gone() -> bool:
        return not any([await world.addresses(f"/v1/resolve/{name}") for name in services])

    await until(gone, within_s=60)


async def names(world: World) -> set[str]:
    async with world.http.get("/v1/services") as response:
        return {each["name"] for each in (await response.json())["services"]}


async def status(world: World, path: str) -> int:
    async with world.http.get(path) as response:
        return response.status


async def test_a_vanished_service_does_not_make_plain_lookups_ambiguous(world: World) -> None:
    await world.add("a")
    await world.until(1)
    await come_and_go(world, "flowers")
    await until(lambda: _is(status(world, "/"), 200), within_s=10)
    assert await status(world, "/v1/resolve/flowers") == 503, "no worker now, not: no such service"
    assert await world.addresses("/") == {f"127.0.0.1:{world.workers['a'].port}"}


async def test_two_listed_services_are_ambiguous(world: World) -> None:
    await world.add("a")
    await world.add("b", service="flowers")
    await world.until(1)
    await world.until(1, "/v1/resolve/flowers")
    assert await status(world, "/") == 400


@SOON
async def test_a_vanished_service_is_forgotten_with_all_that_is_about_it(world: World) -> None:
    await world.add("a")
    await world.until(1)
    await come_and_go(world, "flowers")
    await until(lambda: _is(status(world, "/v1/resolve/flowers"), 404), within_s=10)
    assert await names(world) == {"digits"}
    async with world.http.get("/metrics") as response:
        metrics = await response.text()
    assert 'service="digits"' in metrics
    assert "flowers" not in metrics
    # Forgotten is not banned, and its counters begin anew.
    await world.add("b", service="flowers")
    await world.until(1, "/v1/resolve/flowers")
    await until(
        lambda: world.measured('fingerpost_proxy_instances{service="flowers"} 1.0'), within_s=10
    )
    assert await status(world, "/") == 400


@SOON
async def test_a_lookup_that_is_held_for_a_vanished_service_ends(world: World) -> None:
    await world.add("a")
    await world.until(1)
    worker = FakeWorker()
    await worker.start()
    entry = await world.registry.register(instance("f", worker.port, service="flowers"))
    await world.until(1, "/v1/resolve/flowers")
    await worker.stop()
    await entry.deregister()
    await until(lambda: _is(status(world, "/v1/resolve/flowers"), 503), within_s=10)
    async with world.http.get("/v1/resolve/flowers") as response:
        index = response.headers["Fingerpost-Index"]
    started = time.monotonic()
    held = await status(world, f"/v1/resolve/flowers?index={index}&wait=60s")
    assert held in (404, 503)
    assert time.monotonic() - started < 10
    # The next one waits for the service to come back.
    waiting = asyncio.create_task(status(world, "/v1/resolve/flowers?index=1&wait=60s"))
    await asyncio.sleep(0.1)
    await world.add("b", service="flowers")
    async with asyncio.timeout(10):
        assert await waiting == 200


@pytest.fixture
def few_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of a world that is made after this watches ten services, not a hundred."""
    monkeypatch.setattr("fingerpost.registry.consul.registry.MAX_WATCHES", 10)


async def test_names_that_came_and_went_keep_no_new_one_out(
    few_watches: None, world: World
) -> None:
    """As many as are watched at once: the new service takes the place of the oldest of them."""
    await come_and_go(world, *(f"name-{number}" for number in range(10)))
    assert len(await names(world)) == 10
    await world.add("a")
    await until(lambda: _is(status(world, "/v1/resolve/digits"), 200), within_s=10)
    assert await world.addresses("/") == {f"127.0.0.1:{world.workers['a'].port}"}
    assert len(await names(world)) == 10


@SOON
async def test_an_outage_makes_no_service_vanish(world: World) -> None:
    await world.add("a")
    await world.add("b", service="flowers")
    await world.until(1)
    await world.until(1, "/v1/resolve/flowers")
    await world.embedded.aclose()
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert await names(world) == {"digits", "flowers"}
    assert await status(world, "/v1/resolve/flowers") == 200


async def _is(answer: object, wanted: int) -> bool:
    return await answer == wanted  # type: ignore[misc]
