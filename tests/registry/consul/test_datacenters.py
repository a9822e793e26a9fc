"""Which datacenter a service is read from: the rule as a table, then two real ones."""

from __future__ import annotations

import random

import pytest
from tests.support.consul_process import ConsulProcess
from tests.support.waiting import until

from fingerpost.errors import RegistryDenied, RegistryError, RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo, Snapshot, WatchConfig
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.consul.datacenters import RETURN_S, DatacenterOrder


class World:
    """Datacenters as a script: what each one answers, and which reads there were."""

    def __init__(self, **answers):
        self.answers = answers
        self.names = tuple(answers)
        self.reads = []

    async def read(self, position, index, wait_s):
        name = self.names[position]
        self.reads.append((name, index, wait_s))
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        instances = tuple(
            Instance(
                id=f"{name}-{number}",
                service="flowers",
                host="10.0.0.1",
                ports={"http": 1},
                models=(ModelInfo(name="flowers", versions=("1",)),),
            )
            for number in range(max(0, answer))
        )
        snapshot = Snapshot(
            service="flowers", instances=instances, known=answer >= 0, index=7, taken_at=0.0
        )
        return snapshot, 10 * (position + 1)

    def order(self):
        return DatacenterOrder("flowers", self.names, self.read)


DOWN = RegistryUnreachable("down")
DENIED = RegistryDenied("denied")
UNKNOWN = -1  # nobody there, healthy or not


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({"a": 2}, ["a-0", "a-1"]),
        ({"a": 2, "b": 3}, ["a-0", "a-1"]),
        ({"a": 0, "b": 1}, ["b-0"]),
        ({"a": UNKNOWN, "b": 1}, ["b-0"]),
        ({"a": DOWN, "b": 1}, ["b-0"]),
        ({"a": 0, "b": DOWN, "c": 1}, ["c-0"]),
        ({"a": 0, "b": 0}, []),
        ({"a": UNKNOWN, "b": 0}, []),
        ({"a": 0, "b": DOWN}, DOWN),
        ({"a": DOWN, "b": 0}, DOWN),
        ({"a": DOWN, "b": RegistryError("other")}, DOWN),
        ({"a": DENIED, "b": 1}, DENIED),
        ({"a": 0, "b": DENIED, "c": 1}, DENIED),
        ({"a": 1, "b": DENIED}, ["a-0"]),
    ],
    ids=str,
)
async def test_the_first_that_has_a_healthy_instance_is_the_answer(answers, wanted):
    poll = World(**answers).order().poll(0, 0.0)
    if isinstance(wanted, Exception):
        with pytest.raises(type(wanted)) as caught:
            await poll
        assert caught.value is wanted
    else:
        snapshot, index = await poll
        assert [each.id for each in snapshot.instances] == wanted
        assert index >= 1


@pytest.mark.parametrize(
    ("answers", "known"),
    [({"a": UNKNOWN, "b": UNKNOWN}, False), ({"a": UNKNOWN, "b": 0}, True), ({"a": 0}, True)],
    ids=str,
)
async def test_an_empty_answer_says_whether_anybody_knows_the_service(answers, known):
    assert (await World(**answers).order().poll(0, 0.0))[0].known is known


async def test_a_watch_is_held_where_the_answer_came_from_and_returns():
    world = World(a=1, b=1)
    order = world.order()
    _, index = await order.poll(0, 20.0)
    _, index = await order.poll(index, 20.0)
    assert world.reads == [("a", 0, 0.0), ("a", 10, 20.0)]

    world.answers["a"] = 0
    snapshot, index = await order.poll(index, 20.0)
    assert snapshot.instances[0].id == "b-0"
    assert world.reads[2:] == [("a", 10, 20.0), ("b", 0, 0.0)]
    _, index = await order.poll(index, 20.0)
    assert world.reads[4:] == [("a", 0, 0.0), ("b", 20, RETURN_S)]

    world.answers["a"] = 1
    snapshot, index = await order.poll(index, 20.0)
    assert snapshot.instances[0].id == "a-0"
    await order.poll(index, 20.0)
    assert world.reads[6:] == [("a", 0, 0.0), ("a", 10, 20.0)]


async def test_while_nobody_is_there_all_are_asked_often():
    world = World(a=0, b=0)
    order = world.order()
    _, index = await order.poll(0, 20.0)
    await order.poll(index, 20.0)
    assert world.reads[2:] == [("a", 10, RETURN_S), ("b", 0, 0.0)]


async def test_no_order_of_events_gives_an_empty_answer_while_somebody_is_there_or_fails():
    rng = random.Random(7)
    world = World(a=1, b=1, c=1)
    order, index = world.order(), 0
    for _ in range(3000):
        for name in world.names:
            world.answers[name] = rng.choice([UNKNOWN, 0, 1, 2, DOWN])
        states = list(world.answers.values())
        try:
            snapshot, index = await order.poll(index, 1.0)
        except RegistryUnreachable:
            assert DOWN in states
            assert all(state is DOWN or state <= 0 for state in states)
            index = 0
        else:
            first = next((n for n, s in world.answers.items() if s is not DOWN and s > 0), None)
            assert {each.id[0] for each in snapshot.instances} == ({first} if first else set())
            assert first or DOWN not in states


# Two real datacenters


@pytest.fixture(scope="module")
def two_datacenters(consul_binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("datacenters")
    first = ConsulProcess(consul_binary, folder / "dc1.log")
    second = ConsulProcess(consul_binary, folder / "dc2.log", datacenter="dc2", joining=first)
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        first.stop()
        second.stop()


async def test_a_service_is_read_from_the_next_datacenter_while_the_own_one_has_nobody(
    two_datacenters, connect, worker, service, raw
):
    first, second = two_datacenters
    options = RegistryConfig(datacenters=("dc1", "dc2"))
    registry = connect(first.url, registry_config=options, watch_config=WatchConfig(wait_s=2))
    remote = connect(second.url, registry_config=RegistryConfig(wan_address="localhost"))

    async def joined():
        async with raw.get(f"{first.url}/v1/catalog/datacenters") as answer:
            return sorted(await answer.json()) == ["dc1", "dc2"]

    await until(joined)
    there = await remote.register(worker.instance(service, "there"))

    async def has(instance_id, host):
        try:
            instances = (await registry.list(service)).instances
        except RegistryError:  # a leader that has not met the other datacenter yet
            return False
        return [(each.id, each.host) for each in instances] == [(instance_id, host)]

    await until(lambda: has(there.instance.id, "localhost"))
    watch = registry.watch(service)
    assert (await watch.ready(5)).instances[0].host == "localhost", "its WAN address"
    assert (await remote.list(service)).instances == (there.instance,), "at home, its own"

    here = await registry.register(worker.instance(service, "here"))
    await until(lambda: has(here.instance.id, "127.0.0.1"))
    await until(lambda: watch.view.instances == (here.instance,), within_s=RETURN_S + 2)
    await here.drain("leaving")
    await until(lambda: [each.host for each in watch.view.instances] == ["localhost"])
    worker.leaving = True  # as a real worker says of itself before it goes
    await here.deregister()
    await there.deregister()
    await until(lambda: watch.view.instances == (), within_s=RETURN_S + 2)
    assert not (await registry.list(service)).known


async def test_a_datacenter_that_does_not_exist_fails_and_the_next_one_answers(
    two_datacenters, connect, worker, service
):
    first, second = two_datacenters
    with pytest.raises(RegistryError, match="dc9"):
        await connect(first.url, registry_config=RegistryConfig(datacenters=("dc9",))).list(service)
    registry = connect(second.url, registry_config=RegistryConfig(datacenters=("dc9", "dc2")))
    registration = await registry.register(worker.instance(service))
    assert len((await registry.list(service)).instances) == 1
    assert service in (await registry.catalog()).services
    await registration.deregister()
