"""Unmodified clients of gRPC find the workers by xDS, and spread their calls by themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import grpc
import pytest
from tests.proxy.xds.echo import XdsWorld, xds_world
from tests.proxy.xds.follower import Follower, ads
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.proxy.xds.messages import message_class, value_of
from fingerpost.proxy.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from fingerpost.proxy.xds_config import XdsConfig
from fingerpost.registry import WorkerState

pytestmark = pytest.mark.shell

DISCOVERY = "envoy.service.discovery.v3"
DRAINING = value_of("envoy.config.core.v3.HealthStatus", "DRAINING")
DeltaDiscoveryRequest = message_class(f"{DISCOVERY}.DeltaDiscoveryRequest")


@pytest.fixture
async def world() -> AsyncIterator[XdsWorld]:
    async with xds_world() as world:
        for name in ("a", "b", "c"):
            await world.add(name)
        yield world


async def test_calls_follow_the_load_that_workers_report_and_none_is_lost(world: XdsWorld) -> None:
    world.workers["a"].utilization = 0.9
    async with world.client("xds:///digits") as client:
        shares, errors = await client.call(60)
        assert not errors
        assert shares.keys() == {"a", "b", "c"}

        async def weighted() -> bool:
            shares, errors = await client.call(70)
            assert not errors
            return shares["a"] < 20 and abs(shares["b"] - shares["c"]) < 8

        await until(weighted, "the busy one has a seventh", within_s=15)
        await world.workers["b"].stop()  # killed: its calls are tried again elsewhere
        calls = 0
        while True:
            shares, errors = await client.call(50)
            assert not errors, "the retries of the listener cover it"
            calls += 1
            if "b" not in shares or calls == 20:
                break
        assert shares.keys() == {"a", "c"}
        await world.add("d")

        async def used() -> bool:
            shares, errors = await client.call(50)
            assert not errors
            return "d" in shares

        await until(used, "the new worker is used", within_s=10)


async def test_a_version_and_an_alias_are_targets(world: XdsWorld) -> None:
    async with world.client("xds:///digits@canary") as client:
        shares, errors = await client.call(9)
        assert (sum(shares.values()), errors) == (9, {})
    async with Follower(world.server) as follower:
        assert await follower.ask(CLUSTER, "digits@canary", "digits@2", "digits@99", "dogs") == {
            "digits@canary",
            "digits@2",
        }


async def test_zones_weights_and_drains() -> None:
    async with xds_world() as world:
        await world.add("a", zone="east", weight=3)
        await world.add("b", zone="west")
        draining = await world.add("c", zone="west")
        async with Follower(world.server, zone="west") as follower:

            async def three() -> bool:
                await follower.send(ENDPOINTS, "digits")
                return len(await follower.endpoints()) == 3

            await until(three, within_s=10)
            draining.http.state = WorkerState.DRAINING
            async with asyncio.timeout(10):
                while True:
                    found = await follower.endpoints()
                    if any(health == DRAINING for *_, health in found):
                        break
        assert sorted(found)[0][:3] == ("east", 1, 3), "another zone is second"
        assert [each[1] for each in found if each[0] == "west"] == [0, 0]


async def test_a_refusal_is_counted_and_logged_and_not_answered_by_the_same(
    world: XdsWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with Follower(world.server, node="evil\x1b[31m") as follower:
        await follower.send(CLUSTER, "digits")
        response = await follower.receive()
        await follower.send(
            CLUSTER,
            "digits",
            response_nonce=response.nonce,
            error_detail={"code": 3, "message": "no\nsuch \x1b[31mpolicy"},
        )
        await until(lambda: "refuses Cluster" in caplog.text, within_s=5)
        (line,) = [each for each in caplog.messages if "refuses Cluster" in each]
        assert "\x1b" not in line
        assert "\n" not in line
        assert "policy" in line
        assert await follower.ask(LISTENER, "digits") == {"digits"}, "the stream goes on"
        assert await rejecting(world) == 1
        # More names with the version of before: it has not taken what it refused.
        await follower.send(CLUSTER, "digits", "x", response_nonce=response.nonce)
        nonce = (await follower.receive()).nonce
        assert await rejecting(world) == 1
        taken = {"response_nonce": nonce, "version_info": nonce}
        await follower.send(CLUSTER, "digits", "x", **taken)

        async def none_left() -> bool:
            return await rejecting(world) == 0

        await until(none_left, within_s=5)


async def rejecting(world: XdsWorld) -> int:
    """How many clients have refused what they were told last."""
    url = f"{world.proxy.url}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    (found,) = re.findall(r"^fingerpost_proxy_xds_rejecting_streams (\d+)", text, re.MULTILINE)
    return int(found)


async def test_a_hundred_thousand_names_are_refused_and_nobody_else_is_disturbed(
    world: XdsWorld,
) -> None:
    async with Follower(world.server) as honest, Follower(world.server) as greedy:
        assert await honest.ask(CLUSTER, "digits") == {"digits"}
        await greedy.send(ENDPOINTS, *(f"n{number}" for number in range(100_000)))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await greedy.receive()
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1000" in (failed.value.details() or "")
        assert await honest.ask(LISTENER, "digits") == {"digits"}


@pytest.mark.parametrize("kind", ["Stream", "Delta"])
@pytest.mark.parametrize("message", [b"\xff" * 2000, b"\x1a\x01\xff"], ids=["bytes", "text"])
async def test_what_is_no_message_ends_the_stream_and_writes_no_line(
    world: XdsWorld, caplog: pytest.LogCaptureFixture, kind: str, message: bytes
) -> None:
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    async with Follower(world.server) as honest:
        assert await honest.ask(CLUSTER, "digits") == {"digits"}
        async with grpc.aio.insecure_channel(world.server) as channel:
            stream = channel.stream_stream(f"/{service}/{kind}AggregatedResources")()
            await stream.write(message)
            with pytest.raises(grpc.aio.AioRpcError, match="DiscoveryRequest") as failed:
                await stream.read()
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await honest.ask(LISTENER, "digits") == {"digits"}
    assert not caplog.messages


@pytest.mark.parametrize("name", ["", "a b", "../x", "digits@", "http/", "x" * 300, "digits\n"])
async def test_names_that_cannot_be(world: XdsWorld, name: str) -> None:
    async with Follower(world.server) as follower:
        assert await follower.ask(CLUSTER, name, "digits") == {"digits"}


async def test_one_client_more_than_there_may_be() -> None:
    async with xds_world(max_streams=1) as world:
        await world.add("a")
        async with Follower(world.server) as first:

            async def known() -> bool:
                return await first.ask(CLUSTER, "digits") == {"digits"}

            await until(known, within_s=10)
            second = Follower(world.server)
            with pytest.raises(grpc.aio.AioRpcError, match="ask another one"):
                async with second:
                    await second.ask(CLUSTER, "digits")


async def test_an_envoy_follows_all_clusters_and_the_routes(world: XdsWorld) -> None:
    async with Follower(world.server) as envoy:

        async def known() -> bool:
            found = await envoy.ask(CLUSTER)
            return found >= {"http/digits", "http/digits@canary", "http/digits@2"}

        await until(known, within_s=10)
        assert await envoy.ask(ROUTES, "fingerpost") == {"fingerpost"}
        assert await envoy.ask(ENDPOINTS, "http/digits") == {"http/digits"}


async def test_incremental_xds(world: XdsWorld) -> None:
    async with grpc.aio.insecure_channel(world.server) as channel:
        stream = ads(channel, delta=True)
        ask = DeltaDiscoveryRequest
        await stream.write(ask(type_url=CLUSTER, resource_names_subscribe=["digits", "dogs"]))
        async with asyncio.timeout(10):
            response = await stream.read()
        assert [each.name for each in response.resources] == ["digits"]
        assert list(response.removed_resources) == ["dogs"]
        await stream.write(ask(type_url=CLUSTER, response_nonce=response.nonce))
        await stream.write(ask(type_url=ENDPOINTS, resource_names_subscribe=["digits"]))
        async with asyncio.timeout(10):
            response = await stream.read()
        version = response.resources[0].version
        await world.add("d")
        async with asyncio.timeout(10):
            response = await stream.read()
        assert response.type_url == ENDPOINTS
        assert response.resources[0].version != version
        stream.cancel()


async def test_a_change_reaches_many_clients_within_a_second(world: XdsWorld) -> None:
    """`make bench` has a thousand."""
    async with AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(Follower(world.server)) for _ in range(50)]
        for follower in followers:
            assert await follower.ask(ENDPOINTS, "digits") == {"digits"}
        await world.add("d")
        async with asyncio.timeout(5):
            await asyncio.gather(*(follower.receive() for follower in followers))


async def test_a_port_in_use_is_said_at_the_start(world: XdsWorld) -> None:
    config = ProxyConfig(
        registry="http://127.0.0.1:9", port=0, xds=XdsConfig(port=world.workers["a"].port)
    )
    with pytest.raises(ConfigurationError, match="--xds-port"):
        async with Proxy(config):
            pass


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"port": 70000}, {"max_streams": 0}, {"look_every_s": 0.0}]
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"xds.{next(iter(wrong))}"):
        XdsConfig(**wrong)
