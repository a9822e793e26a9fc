"""Foreign workers at a proxy: plain entries of the registry, found, named and redirected to."""

from __future__ import annotations

import aiohttp
import pytest
from tests.proxy.world import FakeWorker
from tests.support.waiting import until

from fingerpost.errors import InvalidInstance
from fingerpost.proxy import ProxyConfig
from fingerpost.proxy.answers import foreign_path
from fingerpost.proxy.config import ProxyLeasesConfig
from fingerpost.registry import RegistryConfig
from fingerpost.registry.access.config import CallersConfig
from fingerpost.registry.foreign import foreign_instance


async def put(world, name="flowers", **fields):
    """A server of somebody else's, and its plain entry in the registry."""
    worker = world.workers[f"plain-{name}"] = FakeWorker()
    await worker.start()
    entry = {"Name": name, "Address": "127.0.0.1", "Port": worker.port} | fields
    url = f"{world.embedded.url}/v1/agent/service/register"
    async with aiohttp.ClientSession() as http, http.put(url, json=entry) as answer:
        assert answer.status == 200, await answer.text()
    return worker


async def test_a_plain_entry_is_found_by_its_name(world):
    worker = await put(world)
    await world.until(1, "/v1/resolve/flowers")
    async with world.http.get("/v1/resolve/flowers") as answer:
        (found,) = (await answer.json())["instances"]
    assert found["address"] == f"127.0.0.1:{worker.port}"
    assert found["models"] == [{"name": "flowers", "versions": [], "aliases": {}}]
    assert (found["meta"], found["load"]) == ({"protocol": "form"}, None)
    async with world.http.get("/v1/resolve/flowers@3") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_model")
    async with world.http.get("/v1/services") as answer:
        (entry,) = (await answer.json())["services"]
    assert (entry["instances"], entry["foreign"], entry["versions"]) == (1, 1, [])
    assert await world.measured('fingerpost_proxy_foreign_instances{service="flowers"} 1.0')


async def test_get_names_the_address_alone_or_with_the_path_of_its_metadata(world):
    worker = await put(world, Meta={"path": "/predict"})
    await world.until(1, "/v1/resolve/flowers")
    async with world.http.get("/") as answer:  # the only service there is
        assert await answer.text() == f"127.0.0.1:{worker.port}/predict\n"
    assert worker.probes == 0, "it was asked for a load report"


async def test_a_redirect_goes_to_its_path_or_else_to_the_same(world):
    first = await put(world, "flowers", Meta={"path": "/predict"})
    second = await put(world, "cats")
    for name, port, path in (
        ("flowers", first.port, "/predict?top=3"),
        ("cats", second.port, "/v1/classify/cats?top=3"),
    ):
        await world.until(1, f"/v1/resolve/{name}")
        async with world.http.post(
            f"/v1/classify/{name}?top=3", data=b"x", allow_redirects=False
        ) as answer:
            assert answer.status == 307
            assert answer.headers["Location"] == f"http://127.0.0.1:{port}{path}"


async def test_one_that_refuses_connections_is_not_named(world):
    first = await put(world, ID="a")
    second = await put(world, ID="b")
    await world.until(2, "/v1/resolve/flowers")
    await first.stop()

    async def named() -> set[str]:
        return {await (await world.http.get("/")).text() for _ in range(4)}

    async def only_the_second() -> bool:
        return await named() == {f"127.0.0.1:{second.port}\n"}

    await until(only_the_second, within_s=5)


async def test_a_name_that_somebody_looked_up_does_not_change_the_default_service(world):
    await world.add("one")
    await world.until(1)
    await put(world)
    await world.until(1, "/v1/resolve/flowers")
    async with world.http.get("/") as answer:
        assert answer.status == 200
        assert str(world.workers["one"].port) in await answer.text()


@pytest.mark.parametrize("world", [{"relay": True}], indirect=True)
async def test_what_is_not_in_its_protocol_is_not_relayed_to_it(world):
    worker = await put(world)
    await world.until(1, "/v1/resolve/flowers")
    for path in ("/v1/relay/flowers", "/v1/relay/infer/flowers"):
        async with world.http.post(path, data=b"x") as answer:
            assert answer.status == 403
            assert "/v1/relay/foreign/flowers" in (await answer.json())["error"]["message"]
    assert worker.paths == []


NAMED = RegistryConfig(foreign_services=("flowers",))


@pytest.mark.parametrize("world", [{"registry_config": NAMED}], indirect=True)
async def test_a_service_that_is_named_is_listed_and_others_are_unknown(world):
    await put(world)
    await put(world, "cats")
    await world.until(1, "/v1/resolve/flowers")
    async with world.http.get("/v1/resolve/cats") as answer:
        assert answer.status == 404
    async with world.http.get("/v1/services") as answer:
        assert [each["name"] for each in (await answer.json())["services"]] == ["flowers"]


def test_a_proxy_that_checks_callers_or_signs_leases_wants_them_named(tmp_path):
    leases = ProxyLeasesConfig(key_file=tmp_path / "key")
    callers = CallersConfig(policy=str(tmp_path / "callers.toml"))
    assert ProxyConfig(registry="x").reading.foreign_services is None
    assert ProxyConfig(registry="x", leases=leases).reading.foreign_services == ()
    assert ProxyConfig(registry="x", callers=callers).reading.foreign_services == ()
    named = ProxyConfig(registry="x", leases=leases, registry_config=NAMED)
    assert named.reading.foreign_services == ("flowers",)


@pytest.mark.parametrize("path", ["predict", "/a b", "/a\r\nSet-Cookie: x", "//é", "http://x/"])
def test_a_path_that_is_not_valid_is_left_out(path):
    worker = foreign_instance("flowers", host="h", port=1, meta={"path": path})
    assert foreign_path(worker) == ""


def test_an_instance_with_a_protocol_that_is_not_known():
    with pytest.raises(InvalidInstance, match="use fingerpost, v2"):
        foreign_instance("flowers", host="h", port=1, meta={"protocol": "soap"})


async def test_leaving_out_is_said_in_status(world):
    await put(world, Meta={"protocol": "soap"}, Tags=["fingerpost"])

    async def said() -> bool:
        async with world.http.get("/v1/services") as answer:
            services = (await answer.json())["services"]
        return bool(services) and "soap" in str(services[0].get("rejected"))

    await until(said, within_s=5)
