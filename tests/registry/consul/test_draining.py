"""Draining by id, at real agents: the own one, another one, and those that cannot be told."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from fingerpost.errors import InvalidName, InvalidRequest
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import encode_instance


async def test_another_process_drains_and_undrains_by_id(registry, url, connect, worker, service):
    registration = await connect(url).register(worker.instance(service))
    instance_id = registration.instance.id
    await registry.set_draining(instance_id, "new GPU")
    assert (await registry.list(service)).instances == ()
    await registry.set_draining(instance_id, None)
    assert (await registry.list(service)).instances == (registration.instance,)
    await registration.deregister()
    with pytest.raises(InvalidRequest, match=instance_id):
        await registry.set_draining(instance_id, "x")
    with pytest.raises(InvalidName):
        await registry.set_draining("../x", "x")


async def test_through_another_agent_the_order_goes_to_the_instances_own(
    consul_cluster, connect, worker, service
):
    registration = await connect(consul_cluster.url).register(worker.instance(service))
    instance_id = registration.instance.id
    elsewhere = connect(consul_cluster.url_of("server1"))
    await elsewhere.set_draining(instance_id, "new GPU")
    assert (await elsewhere.list(service)).instances == ()
    (entry,) = consul_cluster.get("client", f"/v1/health/service/{service}")
    assert "new GPU" in {check["Notes"] for check in entry["Checks"]}
    await elsewhere.set_draining(instance_id, None)
    assert (await elsewhere.list(service)).instances == (registration.instance,)
    await registration.deregister()


async def test_where_its_agent_cannot_be_reached_the_error_says_what_to_run_where(
    consul_cluster, connect, worker, service
):
    with consul_cluster.one_more("gpu7", "127.0.0.5", "127.0.0.6") as url:
        registration = await connect(url).register(worker.instance(service))
        instance_id = registration.instance.id
        elsewhere = connect(consul_cluster.url)
        port = url.rpartition(":")[2]
        tried = re.escape(f"machine gpu7 at 127.0.0.5, and the call to that agent at "
                          f"http://127.0.0.5:{port}")  # fmt: skip
        for order, reason in (("drain", "x"), ("undrain", None)):
            run = f"fingerpost {order} {instance_id} --registry consul://127.0.0.1:{port}$"
            with pytest.raises(InvalidRequest, match=f"{tried} failed: .*; run there: {run}"):
                await elsewhere.set_draining(instance_id, reason)
        assert (await elsewhere.list(service)).instances == (registration.instance,)
        await registration.deregister()


@pytest.fixture
async def registered_at(consul_cluster, worker, service, raw):
    """`await registered_at(ADDRESS)`: the id of an entry on a node of that address, in the catalog
    alone: no agent knows it."""
    nodes = []

    async def tell(path, body):
        async with raw.put(f"{consul_cluster.url}/v1/catalog/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def make(address):
        instance = worker.instance(service)
        entry = encode_instance(instance, CheckConfig())
        nodes.append(f"ghost-{service}")
        await tell(
            "register",
            {
                "Node": nodes[-1],
                "Address": address,
                "Service": {
                    "ID": instance.id,
                    "Service": service,
                    "Address": instance.host,
                    "Port": instance.ports["http"],
                    "Tags": entry["tags"],
                    "Meta": entry["meta"],
                },
            },
        )
        return instance.id

    yield make
    for node in nodes:
        await tell("deregister", {"Node": node})


async def test_an_agent_that_hangs_costs_one_deadline(consul_cluster, connect, registered_at):
    port = int(consul_cluster.url.rpartition(":")[2])

    async def hang(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.7", port):
        instance_id = await registered_at("127.0.0.7")
        registry = connect(consul_cluster.url, call_timeout_s=1.0)
        before = time.monotonic()
        with pytest.raises(InvalidRequest, match=r"127\.0\.0\.7.*no answer within 1 s"):
            await registry.set_draining(instance_id, "x")
        assert time.monotonic() - before < 3


async def test_an_agent_that_does_not_know_it_is_named(consul_cluster, connect, registered_at):
    instance_id = await registered_at("127.0.0.2")
    with pytest.raises(InvalidRequest, match=r"127\.0\.0\.2:\d+ does not have it"):
        await connect(consul_cluster.url).set_draining(instance_id, "x")


@pytest.mark.parametrize(
    ("address", "said"),
    [("169.254.169.254", "metadata"), ("10.1.2.3", "outside"), ("not a host!", "is not valid")],
    ids=str,
)
async def test_a_machine_that_is_not_admitted_is_not_given_the_token(
    consul_cluster, connect, registered_at, address, said
):
    instance_id = await registered_at(address)
    registry = connect(consul_cluster.url, address_policy=AddressPolicy.parse(["127.0.0.0/8"]))
    with pytest.raises(InvalidRequest, match=rf"{re.escape(address)}.*{said}.*run there"):
        await registry.set_draining(instance_id, "x")
