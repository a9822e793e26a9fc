"""What every registry must do: run against the embedded one and against a real Consul agent."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from tests.support.waiting import until

from fingerpost.errors import InvalidInstance, InvalidName, RegistryError, RegistryUnreachable
from fingerpost.registry import ModelInfo, WatchConfig


async def _put(raw, url, path, **arguments):
    async with raw.put(url + path, **arguments) as answer:
        assert answer.status == 200, await answer.text()


async def _forget(raw, url, instance):
    """Deregister behind the library's back, as an agent that lost its memory does."""
    await _put(raw, url, f"/v1/agent/service/deregister/{instance.id}")


async def _agent_knows(raw, url, instance):
    async with raw.get(f"{url}/v1/agent/service/{instance.id}") as answer:
        return answer.status == 200


def _ids(snapshot):
    return [instance.id for instance in snapshot.instances]


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
    assert _ids(await registry.list(service)) == [registration.instance.id]
    await registration.deregister()


async def test_draining_one_instance_leaves_the_others(registry, worker, service):
    first = await registry.register(worker.instance(service, "1"))
    second = await registry.register(worker.instance(service, "2"))
    await first.drain("leaving")
    assert _ids(await registry.list(service)) == [second.instance.id]
    await first.deregister()
    assert _ids(await registry.list(service)) == [second.instance.id]
    await second.deregister()


# Keeping alive


async def test_a_forgotten_entry_is_registered_again(registry, worker, service, raw, url):
    registration = await registry.register(worker.instance(service))
    await _forget(raw, url, registration.instance)

    async def is_back():
        return _ids(await registry.list(service)) == [registration.instance.id]

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
    assert len(_ids(await registry.list(service))) == 2
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
    assert not (await registry.list(foreign)).known
    await until(lambda: service in watch.view.services, within_s=1)
    await registration.deregister()
    await until(lambda: service not in watch.view.services, within_s=1)
    await _put(raw, url, f"/v1/agent/service/deregister/{foreign}")


# Watching


async def test_a_watch_is_shared(registry, service):
    assert registry.watch(service) is registry.watch(service)
    assert registry.watch_catalog() is registry.watch_catalog()


async def test_an_idle_watch_is_held_by_the_registry(url, connect, worker, service):
    registry = connect(url, watch_config=WatchConfig(wait_s=0.5))
    registration = await registry.register(worker.instance(service))
    started = time.monotonic()
    watch = registry.watch(service)
    await watch.ready(5)
    await until(lambda: watch.polls >= 4)
    # The first poll answers at once; of the others, only one that a change ended may be shorter.
    assert time.monotonic() - started >= 0.95
    assert watch.changes == 1
    await registration.deregister()


async def test_a_watch_sees_each_change_with_few_polls(url, connect, worker, service):
    registry = connect(url)
    watch = registry.watch(service)
    await watch.ready(5)
    for _ in range(3):
        started = time.monotonic()
        worker.leaving = False
        registration = await registry.register(worker.instance(service))
        await until(lambda: watch.view.instances, within_s=1)
        worker.leaving = True  # as a real worker says of itself before it goes
        await registration.deregister()
        await until(lambda: not watch.view.instances, within_s=1)
        assert time.monotonic() - started < 1
    assert watch.polls <= 20
    assert watch.errors == 0


# Hostile entries

HOSTILE = {
    "port-too-high": {"Port": 70000},
    "port-zero": {"Port": 0},
    "bad-address": {"Address": "not a host!"},
    "digits-address": {"Address": "999.1.1.1"},
    "no-meta": {"Meta": {}},
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
        entry["Meta"] = good_meta | fields.get("Meta", {}) if fields.get("Meta") != {} else {}
        await _put(raw, url, "/v1/agent/service/register", json=entry)
    for _ in range(2):  # the second time nothing is new
        snapshot = await registry.list(service)
        assert _ids(snapshot) == [registration.instance.id]
        assert registry.rejected == len(HOSTILE)
    logged = [each for each in caplog.records if "rejected" in each.getMessage()]
    assert len(logged) == len(HOSTILE)
    for name in HOSTILE:
        entry_id = name if ".." in name else f"{service}-{name}"
        await _put(raw, url, f"/v1/agent/service/deregister/{entry_id}")
    await registration.deregister()


# Outages


async def test_an_outage_keeps_the_view_and_the_registrys_return_brings_all_back(
    restartable, connect, worker, service
):
    url = await restartable.start()
    registry = connect(url, call_timeout_s=1.0)
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    view = await watch.ready(5)
    assert view.instances == (registration.instance,)

    await restartable.stop()
    started = time.monotonic()
    with pytest.raises(RegistryUnreachable):
        await registry.list(service)
    with pytest.raises(RegistryUnreachable):
        await registry.register(worker.instance(service, "2"))
    assert time.monotonic() - started < 2.5
    await until(lambda: watch.error is not None and watch.errors >= 2)
    assert watch.view.instances == (registration.instance,), "an error is not an empty list"

    await restartable.start()  # with no memory of anything
    returned = time.monotonic()

    async def is_back():
        return _ids(await registry.list(service)) == [registration.instance.id]

    await until(is_back, within_s=5)
    await until(lambda: watch.error is None and watch.view.instances, within_s=5)
    assert time.monotonic() - returned < 5
    await registration.deregister()


# The two registries' answers, side by side

PLAIN = {"Name": "{s}", "ID": "{s}-1", "Tags": ["fingerpost"], "Port": 80}
CONFORMANCE = [
    ("GET", "/v1/status/leader", None),
    ("GET", "/v1/agent/self", None),
    ("GET", "/v1/catalog/services", None),
    ("PUT", "/v1/agent/service/register", "nonsense"),
    ("PUT", "/v1/agent/service/register", ""),
    ("PUT", "/v1/agent/service/register", []),
    ("PUT", "/v1/agent/service/register", {"ID": "x"}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Unknown": 1}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Port": "80"}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"a.b": "c"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"a": "x" * 513}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {f"k{n}": "" for n in range(65)}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Meta": {"consul-x": ""}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Weights": {"Passing": 0}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Weights": {"Passing": 65536}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "soon"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "9s", "Interval": "9s"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"TTL": "9s", "Status": "odd"}}),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Check": {"HTTP": "http://127.0.0.1:1"}}),
    (
        "PUT",
        "/v1/agent/service/register",
        PLAIN | {"Check": {"TTL": "60s"}, "checks": [{"ttl": "60s", "status": "passing"}]},
    ),
    ("PUT", "/v1/agent/service/register?replace-existing-checks=odd", PLAIN),
    ("GET", "/v1/agent/service/register", None),
    ("POST", "/v1/agent/service/deregister/{s}-1", None),
    ("POST", "/v1/catalog/services", None),
    ("GET", "/v1/agent/service/{s}-1", None),
    ("GET", "/v1/agent/service/{s}-nobody", None),
    ("GET", "/v1/agent/services", None),
    ("GET", "/v1/agent/checks", None),
    ("GET", "/v1/health/service/{s}", None),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("GET", "/v1/health/service/{s}?passing=false&tag=Fingerpost", None),
    ("GET", "/v1/health/service/{s}?passing=odd", None),
    ("GET", "/v1/health/service/{s}?tag=nobody", None),
    ("GET", "/v1/health/service/{s}?index=odd", None),
    ("GET", "/v1/health/service/{s}?index=-1", None),
    ("GET", "/v1/health/service/{s}?index=0", None),
    ("GET", "/v1/health/service/{s}?index=1&wait=odd", None),
    ("GET", "/v1/health/service/{s}?wait=1", None),
    ("GET", "/v1/health/service/{s}?stale&consistent", None),
    ("GET", "/v1/health/service/{s}?index=999999999&wait=10ms", None),
    ("GET", "/v1/health/service/{s}-nobody", None),
    ("GET", "/v1/health/checks/{s}", None),
    ("GET", "/v1/catalog/service/{s}", None),
    ("GET", "/v1/catalog/service/{s}-nobody", None),
    ("PUT", "/v1/agent/check/pass/service:{s}-1:1", None),
    ("PUT", "/v1/agent/check/warn/service:{s}-1:2?note=hot", None),
    ("PUT", "/v1/agent/check/fail/service:{s}-1:2", None),
    ("PUT", "/v1/agent/check/update/service:{s}-1:2", {"Status": "passing", "Output": "fine"}),
    ("PUT", "/v1/agent/check/update/service:{s}-1:2", {"Status": "odd"}),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1?enable=odd", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-nobody?enable=true", None),
    ("PUT", "/v1/agent/service/maintenance/{s}-1?enable=True&reason=why", None),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/register", PLAIN),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("GET", "/v1/health/checks/{s}", None),
    ("PUT", "/v1/agent/service/register?replace-existing-checks", PLAIN),
    ("GET", "/v1/health/service/{s}?passing", None),
    ("PUT", "/v1/agent/service/register", PLAIN | {"Name": "{s}-moved"}),
    ("GET", "/v1/health/service/{s}", None),
    ("GET", "/v1/health/service/{s}-moved", None),
    ("PUT", "/v1/agent/service/deregister/{s}-1", None),
    ("GET", "/v1/health/service/{s}-moved", None),
    ("GET", "/v1/nothing-here", None),
]


async def _ask(raw, url, service, method, path, body):
    path = path.replace("{s}", service)
    if isinstance(body, dict):
        body = {
            key: value.replace("{s}", service) if isinstance(value, str) else value
            for key, value in body.items()
        }
    payload = {"data": body} if isinstance(body, str) else {"json": body} if body else {}
    async with raw.request(method, url + path, allow_redirects=False, **payload) as answer:
        blocking = {
            name: answer.headers.get(name) == "true" if name.endswith("Leader") else True
            for name in ("X-Consul-Index", "X-Consul-KnownLeader", "X-Consul-LastContact")
            if name in answer.headers
        }
        if blocking:
            assert int(answer.headers["X-Consul-Index"]) >= 1
        content = await answer.json() if answer.content_type == "application/json" else None
        return answer.status, blocking, content


def _missing(ours, theirs, where="$"):
    """Where our answer has what Consul's lacks, or another number of things, or another value."""
    kept = ("ID", "Status", "CheckID", "Type", "Notes", "Tags", "Port", "Weights", "ServiceName")
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            problem
            for key, value in ours.items()
            for problem in (
                _missing(value, theirs[key], f"{where}.{key}")
                if key in theirs
                else [f"{where}.{key} is not Consul's"]
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            problem
            for number, (mine, other) in enumerate(zip(ours, theirs, strict=True))
            for problem in _missing(mine, other, f"{where}[{number}]")
        ]
    if isinstance(ours, list) or isinstance(theirs, list):
        return [] if not ours and not theirs else [f"{where}: {ours} but Consul {theirs}"]
    field = where.rpartition(".")[2]
    if field in kept and ".Node.ID" not in where and ours != theirs:
        return [f"{where}: {ours!r} but Consul {theirs!r}"]
    return []


async def test_the_embedded_registry_answers_as_consul_does(raw, consul_url, service, embedded):
    for method, path, body in CONFORMANCE:
        ours = await _ask(raw, embedded.url, service, method, path, body)
        theirs = await _ask(raw, consul_url, service, method, path, body)
        what = f"{method} {path} {body}"
        assert ours[:2] == theirs[:2], what
        if service in str(ours[2]) or service in str(theirs[2]):
            mine, other = (_about(service, each[2]) for each in (ours, theirs))
            assert _missing(mine, other) == [], what
        else:
            assert type(ours[2]) is type(theirs[2]), what


def _about(service, content):
    """Only what is about this service: the Consul agent is shared with other tests."""
    if isinstance(content, dict) and "ID" not in content:
        return {key: value for key, value in content.items() if service in key}
    if isinstance(content, list):  # /v1/catalog/service shows the node's own, random id
        return [{k: v for k, v in each.items() if k != "ID"} for each in content]
    return content
