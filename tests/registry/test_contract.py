"""What every registry must do: run against the embedded one and against a real Consul agent."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import (
    InvalidInstance,
    InvalidName,
    InvalidRequest,
    RegistryError,
)
from fingerpost.registry import ModelInfo


async def _put(raw, url, path, **arguments):
    async with raw.put(url + path, **arguments) as answer:
        assert answer.status == 200, await answer.text()


async def _forget(raw, url, instance):
    """Deregister behind the library's back, as an agent that lost its memory does."""
    await _put(raw, url, f"/v1/agent/service/deregister/{instance.id}")


async def _agent_knows(raw, url, instance):
    async with raw.get(f"{url}/v1/agent/service/{instance.id}") as answer:
        return answer.status == 200


# Registering


async def test_a_registration_is_seen_by_list_and_watch_within_a_second(registry, worker, service):
    watch = registry.watch(service)
    assert not (await watch.ready(5)).known
    instance = worker.instance(service)
    started = time.monotonic()
    registration = await registry.register(instance)
    snapshot = await registry.list(service)
    assert snapshot.known
    assert snapshot.instances == (instance,)
    async with asyncio.timeout(5):
        async for view in watch:
            if view.instances == (instance,):
                break
    assert time.monotonic() - started < 1
    assert registration.instance == instance
    await registration.deregister()


async def test_everything_about_an_instance_survives_the_round_trip(registry, worker, service):
    instance = worker.instance(
        service,
        ports={"rpc": 9001, "zmq": 9002},
        models=tuple(
            ModelInfo(
                name=f"model-{number}",
                versions=tuple(str(version) for version in range(40, 0, -1)),
                aliases={"stable": "39", "canary": "40", f"alias-{number}": "7"},
            )
            for number in range(25)
        ),
        weight=65535,
        zone="rack 7",
        boot_id=2**53 - 1,
        meta={"framework": "tensorflow", "device": "gpu:0", "note": "x" * 512, "empty": ""},
    )
    registration = await registry.register(instance)
    assert (await registry.list(service)).instances == (instance,)
    await registration.deregister()


@pytest.mark.parametrize("name", ["../../kv/secret", "", "UPPER", "a b", "a/b", "a?passing", "é"])
async def test_a_name_outside_the_allow_list_reaches_no_registry(registry, name):
    with pytest.raises(InvalidName):
        await registry.list(name)
    with pytest.raises(InvalidName):
        registry.watch(name)


async def test_deregistering_removes_the_service_and_doing_so_twice_is_no_error(
    registry, worker, service, raw, url
):
    registration = await registry.register(worker.instance(service))
    await registration.deregister()
    await registration.deregister()
    assert not await _agent_knows(raw, url, registration.instance)
    snapshot = await registry.list(service)
    assert not snapshot.known
    assert snapshot.instances == ()


async def test_a_forgotten_entry_can_be_deregistered(registry, worker, service, raw, url):
    registration = await registry.register(worker.instance(service))
    await _forget(raw, url, registration.instance)
    await registration.deregister()
    assert not await _agent_knows(raw, url, registration.instance)


# Updating


async def test_an_update_is_seen_and_the_instance_never_leaves_the_list(
    registry, worker, service, url, connect
):
    registration = await registry.register(worker.instance(service))
    watch = connect(url).watch(service)
    await until(lambda: watch.view is not None and watch.view.instances)
    seen = []

    async def follow():
        async for view in watch:
            seen.append(view.instances)  # noqa: PERF401 - read while it grows

    following = asyncio.create_task(follow())
    for version in ("2", "3", "4"):
        models = (ModelInfo(name="flowers", versions=(version, "1"), aliases={"canary": version}),)
        wanted = worker.instance(service, models=models, meta={"load-error": f"x{version}"})
        await registration.update(wanted)
        assert registration.instance == wanted
        assert (await registry.list(service)).instances == (wanted,)
    await until(lambda: seen and seen[-1] == (wanted,), within_s=2)
    assert all(len(instances) == 1 for instances in seen)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    with pytest.raises(InvalidInstance, match="another instance"):
        await registration.update(worker.instance(service, nonce="2"))
    await registration.deregister()
    await registration.update(worker.instance(service))  # nothing comes back
    assert not (await registry.list(service)).known


async def test_what_is_registered_again_is_the_newest(registry, worker, service, raw, url):
    registration = await registry.register(worker.instance(service))
    newest = worker.instance(service, models=(ModelInfo(name="flowers", versions=("2",)),))
    await registration.update(newest)
    await _forget(raw, url, newest)
    await until(lambda: registration.reregistrations, within_s=4)
    await until(lambda: _agent_knows(raw, url, newest), within_s=4)

    async def listed():  # the agent updates the servers a moment later
        return (await registry.list(service)).instances

    assert await until(listed, within_s=4) == (newest,)
    await registration.deregister()


async def test_an_update_undoes_neither_a_drain_nor_a_failed_check(
    registry, worker, service, raw, url
):
    def newer(version):
        models = (ModelInfo(name="flowers", versions=(version,)),)
        return worker.instance(service, models=models)

    registration = await registry.register(newer("1"))
    await registration.drain("leaving")
    await registration.update(newer("2"))
    snapshot = await registry.list(service)
    assert snapshot.known
    assert snapshot.instances == ()
    await registration.undrain()
    assert (await registry.list(service)).instances == (newer("2"),)
    worker.healthy = False
    watch = registry.watch(service)
    await until(lambda: watch.view is not None and watch.view.instances == (), within_s=4)
    await registration.update(newer("3"))
    assert (await registry.list(service)).instances == ()
    worker.healthy = True
    await until(lambda: watch.view.instances == (newer("3"),), within_s=4)
    await registration.drain("leaving")
    await _forget(raw, url, registration.instance)
    await registration.update(newer("4"))
    assert not await _agent_knows(raw, url, registration.instance)
    await registration.deregister()


async def test_an_update_during_an_outage_is_told_afterwards(restartable, connect, worker, service):
    registry = connect(await restartable.start(), call_timeout_s=1.0)
    registration = await registry.register(worker.instance(service))
    await restartable.stop()
    newest = worker.instance(service, models=(ModelInfo(name="flowers", versions=("2",)),))
    with pytest.raises(RegistryError):
        await registration.update(newest)
    await restartable.start()

    async def told():
        with contextlib.suppress(RegistryError):
            return (await registry.list(service)).instances == (newest,)

    await until(told, within_s=20)
    await registration.deregister()


# Draining


async def test_a_drained_instance_leaves_the_list_at_once_while_its_entry_stays(
    registry, worker, service, raw, url
):
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    view = await watch.ready(5)
    assert view.instances
    await registration.drain("rolling update")
    snapshot = await registry.list(service)
    assert snapshot.known
    assert snapshot.instances == ()
    async with asyncio.timeout(1):
        assert (await watch.changed(view.index)).instances == ()
    assert await _agent_knows(raw, url, registration.instance)
    await registration.undrain()
    assert ids(await registry.list(service)) == [registration.instance.id]
    await registration.deregister()


async def test_draining_one_instance_leaves_the_others(registry, worker, service):
    first = await registry.register(worker.instance(service, "1"))
    second = await registry.register(worker.instance(service, "2"))
    await first.drain("leaving")
    assert ids(await registry.list(service)) == [second.instance.id]
    await first.deregister()
    assert ids(await registry.list(service)) == [second.instance.id]
    await second.deregister()


async def test_an_address_is_drained_with_all_of_its_entries(registry, worker, service):
    first = await registry.register(worker.instance(service, "1"))
    second = await registry.register(worker.instance(service, "2"))
    assert first.instance.address == second.instance.address
    await registry.set_draining(first.instance.address, "new disk")
    snapshot = await registry.list(service)
    assert (snapshot.known, snapshot.instances) == (True, ())
    both = {first.instance.id, second.instance.id}
    assert set(snapshot.withdrawn) == both
    await registry.set_draining(first.instance.address, None)
    assert set(ids(await registry.list(service))) == both
    with pytest.raises(InvalidRequest, match="no instance '127.0.0.1:1'"):
        await registry.set_draining("127.0.0.1:1", "new disk")
    for wrong in ("127.0.0.1:", ":80", "a:b", "a/b"):
        with pytest.raises(InvalidName):
            await registry.set_draining(wrong, "new disk")
    await first.deregister()
    await second.deregister()


# Keeping alive


async def test_a_forgotten_entry_is_registered_again(registry, worker, service, raw, url):
    registration = await registry.register(worker.instance(service))
    await _forget(raw, url, registration.instance)

    async def is_back():
        return ids(await registry.list(service)) == [registration.instance.id]

    await until(is_back, within_s=5)
    await registration.deregister()


async def test_being_forgotten_never_undoes_a_drain(registry, worker, service, raw, url):
    draining = await registry.register(worker.instance(service, "1"))
    witness = await registry.register(worker.instance(service, "2"))
    await draining.drain("leaving")
    await _forget(raw, url, draining.instance)
    # The witness is registered again at the same pace, so its return says that time has passed.
    for _ in range(3):
        await _forget(raw, url, witness.instance)
        await until(lambda: _agent_knows(raw, url, witness.instance))
    assert not await _agent_knows(raw, url, draining.instance)
    await draining.undrain()
    assert len(ids(await registry.list(service))) == 2
    await draining.deregister()
    await witness.deregister()


async def test_a_keep_alive_leaves_maintenance_mode_alone(registry, worker, service):
    registration = await registry.register(worker.instance(service))
    await registration.drain("leaving")
    # Registering the same id anew, as a keep-alive would, must not bring it back.
    again = await registry.register(worker.instance(service))
    assert (await registry.list(service)).instances == ()
    await again.deregister()
    await registration.deregister()


# Health


async def test_a_worker_whose_check_fails_drops_out_and_comes_back(registry, worker, service):
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    assert (await watch.ready(5)).instances
    worker.healthy = False
    await until(lambda: watch.view.instances == (), within_s=4)
    assert watch.view.known, "an unhealthy service is still a known one"
    worker.healthy = True
    await until(lambda: watch.view.instances != (), within_s=4)
    await registration.deregister()


async def test_a_dead_worker_drops_out(registry, worker, service):
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    assert (await watch.ready(5)).instances
    await worker.stop()
    await until(lambda: watch.view.instances == (), within_s=4)
    await registration.deregister()


# The catalog


async def test_the_catalog_lists_fingerposts_services_only(registry, worker, service, raw, url):
    foreign = f"other-{service}"
    await _put(raw, url, "/v1/agent/service/register", json={"Name": foreign, "Port": 80})
    watch = registry.watch_catalog()
    assert service not in (await watch.ready(5)).services
    registration = await registry.register(worker.instance(service))
    assert service in (await registry.catalog()).services
    assert foreign not in (await registry.catalog()).services
    await until(lambda: service in watch.view.services, within_s=1)
    await registration.deregister()
    await until(lambda: service not in watch.view.services, within_s=1)
    await _put(raw, url, f"/v1/agent/service/deregister/{foreign}")


# Hostile entries

HOSTILE = {
    "port-too-high": {"Port": 70000},
    "port-zero": {"Port": 0},
    "bad-address": {"Address": "not a host!"},
    "digits-address": {"Address": "999.1.1.1"},
    "models-no-json": {"Meta": {"fingerpost-models-0": "{"}},
    "models-wrong-type": {"Meta": {"fingerpost-models-0": '{"name": 7}'}},
    "models-empty": {"Meta": {"fingerpost-models-0": "[]"}},
    "models-bad-name": {"Meta": {"fingerpost-models-0": '[{"name":"../x","versions":["1"]}]'}},
    "models-deep": {"Meta": {f"fingerpost-models-{n}": "[" * 512 for n in range(60)}},
    "boot-id": {"Meta": {"fingerpost-boot-id": "-1"}},
    "boot-id-huge": {"Meta": {"fingerpost-boot-id": "9" * 500}},
    "rpc-port": {"Meta": {"fingerpost-port-rpc": "abc"}},
    "bad..id": {},
}


async def test_hostile_entries_are_refused_and_counted_while_the_good_one_stays(
    registry, worker, service, raw, url, caplog
):
    registration = await registry.register(worker.instance(service))
    good_meta = {"fingerpost-models-0": '[{"name":"flowers","versions":["1"]}]'}
    for name, fields in HOSTILE.items():
        entry = {
            "ID": name if ".." in name else f"{service}-{name}",
            "Name": service,
            "Tags": ["fingerpost"],
            "Address": "127.0.0.1",
            "Port": 80,
        } | fields
        entry["Meta"] = good_meta | fields.get("Meta", {})
        await _put(raw, url, "/v1/agent/service/register", json=entry)
    for _ in range(2):  # the second time nothing is new
        snapshot = await registry.list(service)
        assert ids(snapshot) == [registration.instance.id]
        assert registry.rejected == len(HOSTILE)
    logged = [each for each in caplog.records if "rejected" in each.getMessage()]
    assert len(logged) == len(HOSTILE)
    for name in HOSTILE:
        entry_id = name if ".." in name else f"{service}-{name}"
        await _put(raw, url, f"/v1/agent/service/deregister/{entry_id}")
    await registration.deregister()
