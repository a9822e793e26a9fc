"""What is ZooKeeper's own: sessions that expire, servers that stop, threads that must end."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time

import pytest
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import InvalidName, InvalidRequest, RegistryDenied, RegistryUnreachable
from fingerpost.registry.zookeeper import entries
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

# Sessions


async def test_an_expired_session_brings_the_node_back_in_a_new_one(
    connect, url, worker, service, tree
):
    registry, reader = connect(url), connect(url)
    registration = await registry.register(worker.instance(service))
    watch = reader.watch(service)
    assert ids(await watch.ready(5)) == [registration.instance.id]
    old = tree.owner(registration.instance)
    assert old == registry._session.id
    await asyncio.to_thread(tree.expire, registry)
    await until(lambda: tree.owner(registration.instance) not in (0, old), within_s=5)
    await until(lambda: watch.view.instances == (registration.instance,), within_s=2)
    await registration.deregister()
    assert tree.names(service) == []


async def test_an_expired_session_brings_nothing_back_that_was_deregistered(
    connect, url, worker, service, tree
):
    registry = connect(url)
    gone = await registry.register(worker.instance(service, "1"))
    witness = await registry.register(worker.instance(service, "2"))
    await gone.deregister()
    old = tree.owner(witness.instance)
    await asyncio.to_thread(tree.expire, registry)
    await until(lambda: tree.owner(witness.instance) not in (0, old), within_s=5)
    assert tree.names(service) == [witness.instance.id]
    await witness.deregister()


async def test_a_drain_from_afar_survives_the_session(connect, url, worker, service, tree):
    registry, operator = connect(url), connect(url)
    registration = await registry.register(worker.instance(service))
    entry = registration.instance.id
    await operator.set_draining(entry, "new GPU")
    snapshot = await operator.list(service)
    assert (snapshot.known, snapshot.instances, snapshot.withdrawn) == (True, (), (entry,))
    old = tree.owner(registration.instance)
    await asyncio.to_thread(tree.expire, registry)
    await until(lambda: tree.owner(registration.instance) not in (0, old), within_s=5)
    assert (await operator.list(service)).instances == ()
    await operator.set_draining(entry, None)
    assert ids(await operator.list(service)) == [entry]
    await registration.deregister()
    with pytest.raises(InvalidRequest, match=entry):
        await operator.set_draining(entry, "")
    with pytest.raises(InvalidName):
        await operator.set_draining("../" + entry, "")


async def test_an_id_in_use_twice_is_not_fought_over(connect, url, worker, service, tree, caplog):
    first, second = connect(url), connect(url)
    old = await first.register(worker.instance(service, boot_id=1))
    new = await second.register(worker.instance(service, boot_id=2))
    await until(lambda: "an id of its own" in caplog.text)
    assert (await first.list(service)).instances == (new.instance,)
    await old.deregister()
    assert (await first.list(service)).instances == (new.instance,)
    await new.deregister()


async def test_markers_that_dead_workers_left_are_removed(
    connect, url, worker, service, tree, monkeypatch
):
    monkeypatch.setattr(entries, "_ORPHAN_MS", -1)
    tree.client.create(f"{tree.root}/{service}/dead-1:drain", b"", makepath=True)
    registration = await connect(url).register(worker.instance(service))
    assert tree.names(service) == [registration.instance.id]
    await registration.deregister()


async def test_content_that_changes_is_seen_at_once(connect, url, worker, service, tree):
    registry, reader = connect(url), connect(url)
    first = await registry.register(worker.instance(service, "1"))
    second = await registry.register(worker.instance(service, "2"))
    watch = reader.watch(service)
    await watch.ready(5)
    # In place, behind the library's back; then anew, as a worker that loaded another version does.
    path = f"{tree.root}/{service}/{first.instance.id}"
    content = json.loads(tree.client.get(path)[0])
    tree.client.set(path, json.dumps(content | {"weight": 7}).encode())
    await until(lambda: [each.weight for each in watch.view.instances] == [7, 1], within_s=1)
    for weight in (3, 4, 5):
        again = await registry.register(worker.instance(service, "2", weight=weight))
        await until(lambda w=weight: watch.view.instances[1].weight == w, within_s=1)
    for each in (first, second, again):
        await each.deregister()
    await until(lambda: not watch.view.known)


# Servers


async def test_a_server_that_restarts_with_its_data_loses_nobody(
    connect,
    zookeeper_process,
    worker,
    service,
):
    await asyncio.to_thread(zookeeper_process.start)
    registry = connect(zookeeper_process.url, session_timeout_s=4.0, call_timeout_s=1.0)
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    await watch.ready(5)
    views = []
    watch.listen(lambda _, new: views.append(new.instances))
    zookeeper_process.stop()
    await until(lambda: watch.error is not None, within_s=8)
    assert watch.view.instances == (registration.instance,)
    await asyncio.to_thread(zookeeper_process.start)
    returned = time.monotonic()
    await until(lambda: watch.error is None, within_s=5)
    print(f"restarted server: watched again after {time.monotonic() - returned:.2f} s")
    assert (await registry.list(service)).instances == (registration.instance,)
    assert () not in views
    await registration.deregister()


async def test_a_frozen_server_holds_no_call_beyond_its_deadline_and_empties_no_list(
    connect,
    zookeeper_process,
    worker,
    service,
):
    await asyncio.to_thread(zookeeper_process.start)
    registry = connect(zookeeper_process.url, call_timeout_s=0.5)
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    view = await watch.ready(5)
    zookeeper_process.pause()
    calls = {
        "list": lambda: registry.list(service),
        "catalog": registry.catalog,
        "register": lambda: registry.register(worker.instance(service, "2")),
        "drain": lambda: registration.drain("now"),
        "set_draining": lambda: registry.set_draining(registration.instance.id, ""),
    }
    for name, call in calls.items():
        started = time.monotonic()
        with pytest.raises(RegistryUnreachable):
            await call()
        assert time.monotonic() - started < 0.8, name
    await until(lambda: watch.error is not None, within_s=8)
    assert watch.view.instances == view.instances
    frozen_at = watch.view.taken_at
    zookeeper_process.resume()
    # The drain that could not be told is told by the background work; what was given up is not.
    await until(lambda: watch.error is None and not watch.view.instances, within_s=8)
    assert watch.view.taken_at > frozen_at
    await registration.undrain()
    await until(lambda: ids(watch.view) == [registration.instance.id])
    await registration.deregister()


async def test_closing_leaves_no_thread_and_no_socket_even_of_a_frozen_server(
    zookeeper_process,
    worker,
    service,
):
    def threads():
        # The loop's own pool, for asyncio.to_thread, ends with the loop.
        return {each for each in threading.enumerate() if not each.name.startswith("asyncio_")}

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    await asyncio.to_thread(zookeeper_process.start)
    before, open_before = threads(), descriptors()
    for frozen in (False, True, None):
        registry = ZooKeeperRegistry(zookeeper_process.url, call_timeout_s=1.0)
        await registry.register(worker.instance(service))
        await registry.watch(service).ready(5)
        await registry.watch_catalog().ready(5)
        assert threads() > before
        if frozen:
            zookeeper_process.pause()
        elif frozen is None:
            zookeeper_process.stop()
        started = time.monotonic()
        await registry.aclose()
        assert time.monotonic() - started < 3
        assert threads() == before
        if frozen:
            zookeeper_process.resume()
    await asyncio.sleep(0)
    assert descriptors() <= open_before


async def test_where_nobody_listens(connect, free_port, service):
    registry = connect(f"zookeeper://127.0.0.1:{free_port}", call_timeout_s=0.3)
    with pytest.raises(RegistryUnreachable, match=str(free_port)):
        await registry.list(service)


async def test_a_registration_given_up_leaves_nothing(
    connect,
    zookeeper_process,
    worker,
    service,
):
    await asyncio.to_thread(zookeeper_process.start)
    registry = connect(zookeeper_process.url, session_timeout_s=10)
    await registry.catalog()
    zookeeper_process.pause()
    task = asyncio.create_task(registry.register(worker.instance(service)))
    await until(lambda: registry._session.client._pending)  # which nobody answers
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    zookeeper_process.resume()
    assert (await registry.list(service)).instances == ()
    assert (await registry.catalog()).services == ()


# Who else writes there


async def test_nodes_that_make_no_sense_are_refused_and_counted(
    connect, url, worker, service, tree
):
    registry = connect(url)
    registration = await registry.register(worker.instance(service))
    good = json.loads(tree.client.get(f"{tree.root}/{service}/{registration.instance.id}")[0])

    def put(name, *, ephemeral=True, raw=None, **fields):
        data = json.dumps(good | {"id": name} | fields).encode() if raw is None else raw
        tree.client.create(f"{tree.root}/{service}/{name}", data, ephemeral=ephemeral)

    put("persistent", ephemeral=False)
    put("other-id", id="somebody-else")
    put("other-service", service="other")
    put("bad name!")
    put("colon:x")
    put("double:drain:sick")
    put("huge", meta={"x": "y" * 300_000})
    put("no-json", raw=b"\xff\xfe")
    put("empty", raw=b"")
    put("deep", raw=b"[" * 100_000)
    put("link-local", host="169.254.169.254")
    for _ in range(2):
        snapshot = await registry.list(service)
        assert ids(snapshot) == [registration.instance.id]
        assert registry.rejected == 11, registry.rejected_entries.by_reason
    tree.client.delete(f"{tree.root}/{service}", recursive=True)
    await registration.deregister()


async def test_with_a_credential_others_read_and_cannot_write(connect, url, worker, service, tree):
    root = url.rpartition("/")[0] + f"/{service}"
    owner = connect(root, auth="fingerpost:s3cret")
    assert "s3cret" not in owner.url
    registration = await owner.register(worker.instance(service))
    others = [connect(root), connect(root.replace("//", "//fingerpost:wrong@"))]
    for other in others:
        assert (await other.list(service)).instances == (registration.instance,)
        with pytest.raises(RegistryDenied, match="credential"):
            await other.set_draining(registration.instance.id, "")
        with pytest.raises(RegistryDenied) as caught:
            await other.register(worker.instance(service, "2"))
        assert "wrong" not in str(caught.value)
    same = connect(root.replace("//", "//fingerpost:s3cret@"))
    await same.set_draining(registration.instance.id, "")
    assert (await same.list(service)).instances == ()
    await registration.deregister()
