"""A process that may register, but has no registration key, while clients send images."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from fingerpost.client import Client
from fingerpost.registry import RegistryConfig, open_registry
from fingerpost.security.key_files import save_public_keys, save_signing_key
from fingerpost.security.keys import SigningKey
from tests.faults.field import Field, http
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.support.consul_process import ConsulProcess
from tests.support.hostile import reply, serving_hostile
from tests.support.ports import free_port
from tests.support.processes import Processes, get_json
from tests.support.waiting import until

_FAKE = b'{"model":"colours","version":"1","results":[{"name":"x","predictions":[["red",1.0]]}]}'
_EACH_S = 2.0


@pytest.mark.timeout(180)
async def test_an_impostor(
    processes: Processes, model: Path, table: Table, consul_binary: str, tmp_path: Path
) -> None:
    row = table.row("24", "an impostor registered: workers sign their registration")
    key, stranger = tmp_path / "key.json", tmp_path / "stranger.json"
    signing = SigningKey.generate()
    save_signing_key(signing, key)
    save_signing_key(SigningKey.generate(), stranger)
    keys = tmp_path / "keys.json"
    save_public_keys(signing.public, keys)
    config = RegistryConfig(registration_keys=str(keys))
    agent = ConsulProcess(consul_binary, tmp_path / "consul.log")
    agent.start()
    field = Field(processes, model, agent.url)
    try:
        for process in [field.launch("--registration-key", key) for _ in range(2)]:
            await field.adopt(process)
        # A proxy with the keys, and one without, which hands out what is registered.
        field.proxy = await _proxy(processes, agent.url, "--registration-keys", keys)
        unguarded = await _proxy(processes, agent.url)
        await field.known(field.proxy)
        await field.known(unguarded)
        known = await http("GET", f"{agent.url}/v1/agent/service/{field.workers[0].id}")
        async with (
            serving_hostile(reply(_FAKE), b"") as impostor,
            aclosing(open_registry(agent.url, config)) as registry,
            field.traffic(
                {
                    "by the proxy": Client(field.proxy),
                    "by a watch": Client(registry=registry),
                    "by a proxy without keys": Client(unguarded, registry_config=config),
                }
            ) as load,
        ):
            entry = {
                "Name": SERVICE,
                "Address": "127.0.0.1",
                "Port": impostor.port,
                "Tags": known["Tags"],
                "Weights": {"Passing": 65535, "Warning": 1},
            }
            honest = known["Meta"]
            bare = {name: each for name, each in honest.items() if "signature" not in name}
            url = f"{agent.url}/v1/agent/service"
            for id_, meta in (("copied", honest), ("unsigned", bare)):
                await http("PUT", f"{url}/register", {**entry, "ID": id_, "Meta": meta})
                await asyncio.sleep(_EACH_S)
            # A whole worker, with a key that nobody believes, and the greatest weight.
            other = field.launch("--registration-key", stranger, "--weight", 65535)
            believed = await field.adopt(other)
            field.workers.remove(believed)
            await asyncio.sleep(_EACH_S)
            services = await asyncio.to_thread(get_json, f"{field.proxy}/v1/services")
            (rejected,) = (each.get("rejected", {}) for each in services["services"])
            sent = [load.sent_to(each) for each in (impostor.address, believed.address)]
            counted = registry.rejected_entries.by_reason
        row.load(load)
        row.bounded(load)
        row.at_most("images sent to an impostor", sum(map(len, sent)), 0)
        row.at_most("impostors that the proxy does not name", 3 - len(rejected), 0)
        row.done = (
            "An entry with an honest worker's metadata and signature, one without a signature, "
            "and a real worker with a key of its own, each with the greatest weight, under load by "
            "clients of a proxy with the keys, of a watch with the keys, and of a proxy without"
        )
        row.note("Left out: " + ", ".join(f"{n} {why}" for why, n in sorted(counted.items())))
        assert set(rejected) == {"copied", "unsigned", believed.id}
        row.check()
    finally:
        for each in field.workers:
            each.process.end()
        agent.stop()


async def _proxy(processes: Processes, registry: str, *options: object) -> str:
    port = free_port()
    processes.start(
        *("proxy", "--port", port, "--registry", registry, "--service", SERVICE), *options
    )
    url = f"http://127.0.0.1:{port}"
    await until(lambda: get_json(f"{url}/health/ready"), "the proxy is ready", every_s=0.1)
    return url
