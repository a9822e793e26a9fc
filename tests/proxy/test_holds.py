"""Lookups of models without a worker, which are held until the first one is up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from tests.proxy.world import World
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig
from fingerpost.client.wire import HOLD_HEADER
from fingerpost.errors import ConfigurationError, NoWorker
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import open_registry
from fingerpost.registry.embedded import EmbeddedRegistry

HELD = pytest.mark.parametrize(
    "world", [{"hold_for_start_s": 60.0, "expected": ("digits",)}], indirect=True, ids=["held"]
)
LOOKUPS = {
    "address": ("GET", "/"),
    "resolve": ("GET", "/v1/resolve/digits"),
    "resolve, waits": ("GET", "/v1/resolve/digits?wait=50s"),
    "redirect": ("POST", "/v1/classify/digits"),
}


async def load(world: World, service: str = "digits") -> dict[str, Any]:
    async with world.http.get(f"/v1/load/{service}") as response:
        found: dict[str, Any] = await response.json()
        return found


async def until_held(world: World, count: int) -> None:
    async def held() -> bool:
        return bool((await load(world))["held"] == count)

    await until(held, f"{count} held", within_s=10)


async def ask(world: World, method: str, path: str) -> tuple[int, str]:
    async with world.http.request(method, path, allow_redirects=False) as response:
        return response.status, response.headers.get("Location", "") + await response.text()


@pytest.fixture
async def asked() -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks: list[asyncio.Task[Any]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@HELD
async def test_every_kind_of_lookup_is_held_and_answered_by_the_first_worker(
    world: World, asked: list[asyncio.Task[Any]]
) -> None:
    asked += [asyncio.create_task(ask(world, *each)) for each in LOOKUPS.values()]
    await until_held(world, len(LOOKUPS))
    assert await world.measured('fingerpost_proxy_held_lookups{service="digits"} 4.0')
    assert await world.measured('fingerpost_proxy_starts_on_demand{service="digits"} 1.0')
    found = await load(world)
    assert (found["workers"], found["demand"]) == (0, 4)
    await world.add("a")
    for (status, text), kind in zip(await asyncio.gather(*asked), LOOKUPS, strict=True):
        assert status == (307 if kind == "redirect" else 200), text
        assert str(world.workers["a"].port) in text
    await until_held(world, 0)
    assert await world.measured('fingerpost_proxy_held_lookups{service="digits"} 0.0')


@HELD
async def test_what_is_not_expected_or_does_not_want_to_wait_is_answered_at_once(
    world: World,
) -> None:
    assert (await ask(world, "GET", "/v1/resolve/digit"))[0] == 404
    assert (await ask(world, "GET", "/v1/load/digit"))[0] == 404
    async with world.http.get("/v1/resolve/digits?wait=0s") as response:
        assert response.status == 503
        assert response.headers[HOLD_HEADER] == "60"
    async with world.http.get("/v1/resolve/digits?wait=100ms") as response:
        assert response.status == 503
    await world.add("a")
    await world.until(1)
    assert (await ask(world, "GET", "/v1/resolve/digits@9"))[0] == 404  # no start changes that


@pytest.mark.parametrize(
    "world",
    [{"hold_for_start_s": 0.2, "expected": ("digits",), "max_held": 1}],
    indirect=True,
    ids=["short"],
)
async def test_the_time_and_the_number_are_limited(
    world: World, asked: list[asyncio.Task[Any]]
) -> None:
    async with world.http.get("/v1/resolve/digits") as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"

    async def refused() -> bool:
        answers = await asyncio.gather(*(ask(world, "GET", "/v1/resolve/digits") for _ in range(3)))
        assert {status for status, _ in answers} == {503}
        return any("are held already" in text for _, text in answers)

    await until(refused, "one is refused")
    assert not await world.measured("fingerpost_proxy_refused_holds_total 0.0")


@HELD
async def test_a_client_that_goes_is_not_counted_any_more(world: World) -> None:
    task = asyncio.create_task(ask(world, "GET", "/"))
    await until_held(world, 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until_held(world, 0)


@HELD
async def test_a_proxy_that_leaves_answers_what_it_holds(
    world: World, asked: list[asyncio.Task[Any]]
) -> None:
    asked.append(asyncio.create_task(ask(world, "GET", "/v1/resolve/digits")))
    await until_held(world, 1)
    await world.proxy.leave(0.0)
    status, _ = await asyncio.wait_for(asked[0], 5)
    assert status == 503


@HELD
async def test_a_client_waits_for_the_start_and_an_idle_one_is_no_demand(world: World) -> None:
    """The Python client: longer than `wait_for_ready_s`, as long as its image has time."""
    registration = await world.add("a")
    await world.until(1)
    config = ClientConfig(wait_for_ready_s=0.1, timeout_s=30)
    async with Client(world.proxy.url, config=config) as client:
        assert (await client.resolve("digits")).instances
        await registration.deregister()
        await world.until(0, "/v1/resolve/digits?wait=0s")
        for _ in range(20):  # its watch is held by now, and counts for nothing
            assert (await load(world))["held"] == 0
        image = asyncio.create_task(client.classify(b"an image", "digits"))
        await until_held(world, 1)
        await world.add("b")
        with contextlib.suppress(Exception):  # the small server answers something of its own
            await image
        assert world.workers["b"].body_bytes
        await until_held(world, 0)


@HELD
async def test_an_image_that_has_less_time_fails_by_its_deadline(world: World) -> None:
    async with Client(world.proxy.url) as client:
        with pytest.raises(Exception, match="no healthy worker"):
            await client.classify(b"an image", "digits", timeout_s=0.5)


async def test_without_the_option_nothing_is_held(world: World) -> None:
    await (await world.add("a")).deregister()
    await world.until(0)
    async with world.http.get("/v1/resolve/digits") as response:
        assert response.status == 503
        assert HOLD_HEADER not in response.headers
    async with Client(world.proxy.url, config=ClientConfig(wait_for_ready_s=0.1)) as client:
        with pytest.raises(NoWorker):
            await client.classify(b"an image", "digits")


async def test_an_expected_service_is_never_forgotten() -> None:
    async with EmbeddedRegistry(port=0) as embedded:
        config = ProxyConfig(
            registry=embedded.url, port=0, expected=("digits",), forget_after_s=0.0
        )
        async with Proxy(config) as proxy, aiohttp.ClientSession(proxy.url) as http:
            registry = open_registry(embedded.url)
            world = World(embedded, registry, proxy)
            for name in ("digits", "flowers"):
                registration = await world.add(name, service=name)
                await world.until(1, f"/v1/resolve/{name}")
                await registration.deregister()

            async def status(service: str) -> int:
                async with http.get(f"/v1/resolve/{service}") as response:
                    return response.status

            async def forgotten() -> bool:
                return await status("flowers") == 404

            await until(forgotten, within_s=20)
            assert await status("digits") == 503
            await world.http.close()
            await registry.aclose()
        await world.stop_workers()


@pytest.mark.parametrize(
    "wrong",
    [{"hold_for_start_s": -1.0}, {"hold_for_start_s": 601.0}, {"max_held": -1}],
    ids=["negative", "too long", "number"],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ProxyConfig(registry="http://127.0.0.1:1", **wrong)
