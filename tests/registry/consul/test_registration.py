"""What a registration is to a real Consul: TTL checks, DNS, many models; and when it reports."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import subprocess

import dns.message
import dns.query
import dns.rdatatype
import pytest
from tests.support.consul_process import ConsulProcess
from tests.support.waiting import until

from fingerpost.registry import ModelInfo
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.consul.registration import ConsulRegistration

TTL = RegistryConfig(check=CheckConfig(mode="ttl"))


@pytest.fixture(scope="module")
def consul_agent(consul_binary, tmp_path_factory):
    """An agent whose DNS port is known."""
    process = ConsulProcess(consul_binary, tmp_path_factory.mktemp("dns") / "log")
    process.start()
    yield process
    process.stop()


async def _put(raw, url, path):
    async with raw.put(url + path) as answer:
        return answer.status, await answer.text()


# The agent's own check


@pytest.fixture
def looked_at_often(monkeypatch):
    """The agent is asked how its check goes four times a second, instead of every 5 s."""
    monkeypatch.setattr("fingerpost.registry.consul.registration._CHECKS_EVERY_S", 0.25)


@pytest.mark.usefixtures("looked_at_often")
async def test_a_check_that_gets_no_answer_is_told_with_the_remedy(
    registry, worker, service, caplog
):
    caplog.set_level(logging.INFO)
    registration = await registry.register(worker.instance(service))
    await worker.stop()
    await until(lambda: "its check fails" in caplog.text, within_s=12)
    [line] = [each for each in caplog.messages if "its check fails" in each]
    assert registration.instance.url in line
    assert "refused" in line
    assert "--advertise" in line
    assert "--check ttl" in line
    await registration.deregister()


@pytest.mark.usefixtures("looked_at_often")
async def test_a_check_that_the_worker_itself_fails_is_told_without_that_remedy(
    registry, worker, service, caplog
):
    caplog.set_level(logging.INFO)
    registration = await registry.register(worker.instance(service))
    worker.healthy = False
    await until(lambda: "its check fails" in caplog.text, within_s=12)
    assert "503" in caplog.text
    assert "--check ttl" not in caplog.text
    worker.healthy = True
    await until(lambda: "its check passes again" in caplog.text, within_s=12)
    assert caplog.text.count("its check fails") == 1
    await registration.deregister()


# TTL checks


async def test_a_ttl_check_needs_no_way_to_the_worker(registry, url, connect, worker, service):
    ttl = connect(url, registry_config=TTL)
    await worker.stop()
    registration = await ttl.register(worker.instance(service))
    assert (await registry.list(service)).instances == (registration.instance,)
    await registration.deregister()


async def test_registering_again_revives_a_check_that_is_critical(
    registry, url, connect, worker, service, raw
):
    ttl = connect(url, registry_config=TTL)
    registration = await ttl.register(worker.instance(service))
    path = f"/v1/agent/check/fail/service:{registration.instance.id}"
    assert (await _put(raw, url, path))[0] == 200
    again = await ttl.register(registration.instance)
    assert (await registry.list(service)).instances == (registration.instance,)
    await again.deregister()
    await registration.deregister()


async def test_a_ttl_entry_that_was_forgotten_comes_back_passing(
    registry, url, connect, worker, service, raw
):
    registration = await connect(url, registry_config=TTL).register(worker.instance(service))
    await _put(raw, url, f"/v1/agent/service/deregister/{registration.instance.id}")

    async def is_back():
        return (await registry.list(service)).instances == (registration.instance,)

    await until(is_back, within_s=5)
    await registration.deregister()


async def test_what_the_worker_says_of_itself_decides(registry, url, connect, worker, service):
    healthy = True
    registration = await connect(url, registry_config=TTL).register(
        worker.instance(service), healthy=lambda: healthy
    )

    async def listed():
        return bool((await registry.list(service)).instances)

    assert await listed()
    healthy = False

    async def is_off():
        return not await listed()

    await until(is_off, within_s=3)
    healthy = True
    await until(listed, within_s=3)
    await registration.deregister()


class Agent:
    """Counts what a registration tells it, and knows every entry unless it `forgot`."""

    def __init__(self, heartbeat_s):
        self.heartbeat_s = heartbeat_s
        self.calls = []
        self.forgot = False

    async def knows(self, _):
        return not self.forgot

    async def register(self, _):
        self.calls.append("register")
        self.forgot = False

    async def failing_check(self, _):
        return None

    async def report(self, _, *, healthy):
        self.calls.append("pass" if healthy else "fail")

    async def maintenance(self, _, *, enable, reason=""):
        self.calls.append(f"maintenance {enable}")
        return True

    async def deregister(self, _):
        self.calls.append("deregister")


@pytest.fixture
async def reporting(worker):
    """`reporting(agent, **arguments)`: a started registration at a fake agent."""
    made = []

    def make(agent, **arguments):
        registration = ConsulRegistration(
            agent,
            worker.instance("flowers"),
            interval_s=0.01,
            rng=random.Random(7),
            **arguments,
        )
        made.append(registration.start())
        return registration

    yield make
    for registration in made:
        await registration.stop()


async def test_reports_come_every_beat_and_not_every_look(reporting):
    agent = Agent(heartbeat_s=0.2)
    started = asyncio.get_running_loop().time()
    reporting(agent)
    await until(lambda: len(agent.calls) >= 3)
    assert asyncio.get_running_loop().time() - started >= 0.6
    assert set(agent.calls) == {"pass"}


async def test_a_draining_instance_goes_on_reporting_and_is_not_registered_again(reporting):
    agent = Agent(heartbeat_s=0.05)
    registration = reporting(agent)
    await registration.drain("leaving")
    await until(lambda: agent.calls.count("pass") >= 3)
    agent.forgot = True
    await until(lambda: agent.calls.count("pass") >= 3)
    assert "register" not in agent.calls


async def test_an_agent_that_asks_the_worker_gets_no_reports(reporting):
    agent = Agent(heartbeat_s=None)
    reporting(agent, healthy=lambda: False)
    agent.forgot = True
    await until(lambda: "register" in agent.calls)
    assert set(agent.calls) == {"register"}


async def test_a_change_of_health_is_reported_at_once(reporting):
    agent = Agent(heartbeat_s=60.0)
    healthy = True
    reporting(agent, healthy=lambda: healthy)
    healthy = False
    await until(lambda: agent.calls == ["fail"])
    healthy = True
    await until(lambda: agent.calls == ["fail", "pass"])


# Many models


@pytest.mark.parametrize("count", [500, 20_000])
async def test_a_worker_with_many_models_registers(registry, worker, service, count):
    models = tuple(
        ModelInfo(
            name=f"species-{number:05}",
            versions=(str(number + 2), str(number + 1)),
            aliases={"stable": str(number + 1), "canary": str(number + 2)},
        )
        for number in range(count)
    )
    registration = await registry.register(worker.instance(service, models=models))
    (seen,) = (await registry.list(service)).instances
    assert seen.models == models[: len(seen.models)]
    assert len(seen.models) == 500 or count > 500
    assert len(seen.models) >= 500
    await registration.deregister()


# DNS


def _weights(dns_port, name):
    """`{port: weight}` of the SRV records, asked for by TCP: UDP leaves some out silently."""
    query = dns.message.make_query(name, dns.rdatatype.SRV)
    answer = dns.query.tcp(query, "127.0.0.1", timeout=5, port=dns_port)
    records = [each for group in answer.answer for each in group]
    assert all(each.rdtype == dns.rdatatype.SRV for each in records)
    return {each.port: each.weight for each in records}


async def test_consuls_dns_finds_the_workers_with_their_weights(consul_agent, connect, worker):
    registry = connect(consul_agent.url)
    registrations = []
    for port, weight, alias in ((9001, 1, "stable"), (9002, 5, "stable"), (9003, 100, "canary")):
        model = ModelInfo(name="digits", versions=("3",), aliases={alias: "3"})
        registrations.append(
            await connect(consul_agent.url, registry_config=TTL).register(
                worker.instance(
                    "digits", str(port), ports={"http": port}, weight=weight, models=(model,)
                )
            )
        )
    port = consul_agent.dns_port
    assert _weights(port, "digits.service.consul.") == {9001: 1, 9002: 5, 9003: 100}
    assert _weights(port, "canary.digits.service.consul.") == {9003: 100}
    assert _weights(port, "v3.digits.service.consul.") == {9001: 1, 9002: 5, 9003: 100}
    if dig := shutil.which("dig"):
        command = [dig, "+short", "+tcp", "@127.0.0.1", "-p", str(port), "SRV"]
        run = await asyncio.to_thread(
            subprocess.run, [*command, "digits.service.consul"], capture_output=True, text=True
        )
        found = {tuple(map(int, line.split()[1:3])) for line in run.stdout.splitlines()}
        assert found == {(1, 9001), (5, 9002), (100, 9003)}, run
    await registrations[1].drain("leaving")
    assert _weights(port, "digits.service.consul.") == {9001: 1, 9003: 100}
    for registration in registrations:
        await registration.deregister()
    assert not (await registry.list("digits")).known


async def test_a_wan_address_is_among_the_tagged_addresses(consul_agent, connect, worker, raw):
    registry = connect(consul_agent.url, registry_config=RegistryConfig(wan_address="192.0.2.7"))
    registration = await registry.register(worker.instance("digits"))
    async with raw.get(f"{consul_agent.url}/v1/catalog/service/digits") as answer:
        (entry,) = await answer.json()
    addresses = entry["ServiceTaggedAddresses"]
    assert addresses["wan"] == {"Address": "192.0.2.7", "Port": worker.port}
    assert addresses["lan"] == {"Address": "127.0.0.1", "Port": worker.port}
    await registration.deregister()


async def test_a_list_says_which_check_fails_and_why(registry, worker, service):
    registration = await registry.register(worker.instance(service))
    assert (await registry.list(service)).failing == ()
    await worker.stop()

    async def failing():
        return (await registry.list(service)).failing

    [(entry_id, why)] = await until(failing, within_s=10)
    assert entry_id == registration.instance.id
    assert why.startswith(f"{registration.instance.address}: ")
    assert "/health/engine" in why
    await registration.drain("maintenance")
    assert (await registry.list(service)).failing == ()
    await registration.deregister()
