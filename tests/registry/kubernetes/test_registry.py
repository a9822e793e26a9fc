"""What the registry does beyond the contract; `make test-kubernetes` runs it for real."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.support.kubernetes.namespace import POD, endpoint
from tests.support.optional import not_none
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError, InvalidInstance
from fingerpost.registry import Instance, ModelInfo, WatchConfig, open_registry
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.foreign import foreign_instance
from fingerpost.registry.kubernetes.codec import PodReference, encode_lease


def pod(number):
    return PodReference(name=f"w-{number}", uid=f"uid-{number}")


def address(number):
    return f"10.1.{number // 250}.{number % 250 + 1}"


def instance(service, number, **fields):
    host = address(number)
    models = (ModelInfo(name=service, versions=("1",)),)
    return Instance(
        id=f"{service}-{host}-8500-{number}",
        service=service,
        host=host,
        ports={"http": 8500},
        models=models,
        **fields,
    )


async def put_pods(namespace, service, count, *, per_slice=100, zone=True):
    """Leases of `count` pods, and their slices; with a zone, which v1beta1 does not have."""
    place = {"zone": "a"} if zone else {}
    bodies = [encode_lease(instance(service, n), pod(n)) for n in range(count)]
    for start in range(0, count, 50):
        batch = bodies[start : start + 50]
        await asyncio.gather(*(namespace.call("POST", namespace.leases(), body) for body in batch))
    for first in range(0, count, per_slice):
        numbers = range(first, min(count, first + per_slice))
        await namespace.put_slice(
            f"workers-{first}", [endpoint(address(n), pod(n), **place) for n in numbers]
        )


async def test_more_endpoints_than_a_slice_has_room_for(namespace, connect, service, is_real):
    """kuberesolver saw the slice that changed last only, and so at most 100 endpoints."""
    count = 1000 if is_real else 230
    await put_pods(namespace, service, count)
    watch = connect().watch(service)
    assert len((await watch.ready(10)).instances) == count
    assert {each.zone for each in watch.view.instances} == {"a"}
    assert len((await connect().list(service)).instances) == count
    # One pod of the first slice becomes unready; then the whole last slice vanishes.
    first = [endpoint(address(n), pod(n), zone="a", ready=n != 7) for n in range(100)]
    began = time.monotonic()
    await namespace.put_slice("workers-0", first)
    await until(lambda: len(watch.view.instances) == count - 1, within_s=1)
    assert time.monotonic() - began < 1
    assert instance(service, 7).id not in ids(watch.view)
    await namespace.delete_slice(f"workers-{(count - 1) // 100 * 100}")
    left = (count - 1) // 100 * 100 - 1
    await until(lambda: len(watch.view.instances) == left, within_s=1)
    assert watch.errors == 0


async def test_a_pod_that_terminates_leaves_the_list_at_once(namespace, connect, worker, service):
    await namespace.put_slice("workers-1", [endpoint()])
    registry = connect()
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    await watch.ready(5)
    await until(lambda: watch.view.instances)
    leaving = endpoint(ready=False, serving=True, terminating=True)
    await namespace.put_slice("workers-1", [leaving])
    await until(lambda: watch.view.instances == (), within_s=1)
    assert watch.view.withdrawn == (registration.instance.id,)
    assert watch.suspicions == 0
    assert watch.view.failing == ()
    await registration.deregister()


async def test_a_pod_that_no_service_selects_is_named(connect, worker, service):
    registry = connect()
    registration = await registry.register(worker.instance(service))
    snapshot = await registry.list(service)
    assert (snapshot.known, snapshot.instances, snapshot.withdrawn) == (True, (), ())
    assert (
        "in no EndpointSlice: no Service selects it"
        in dict(snapshot.failing)[registration.instance.id]
    )
    await registration.deregister()


async def test_only_the_slices_of_the_service_in_the_url_count(namespace, connect, worker, service):
    await namespace.put_slice("other-1", [endpoint()], service="other")
    registration = await connect().register(worker.instance(service))
    assert ids(await connect().list(service)) == [registration.instance.id]
    assert ids(await connect(f"{namespace.url}/other").list(service)) != []
    assert ids(await connect(f"{namespace.url}/workers").list(service)) == []
    await registration.deregister()


async def test_a_change_by_one_process_reaches_another_one_in_milliseconds(
    namespace, connect, worker, service
):
    await namespace.put_slice("workers-1", [endpoint()])
    watch = connect().watch(service)
    await watch.ready(5)
    slowest = 0.0
    for number in range(5):
        began = time.monotonic()
        registration = await connect().register(worker.instance(service, f"n{number}"))
        await until(lambda: watch.view.instances, within_s=1)
        slowest = max(slowest, time.monotonic() - began)
        began = time.monotonic()
        await connect().set_draining(registration.instance.id, "new disk")
        await until(lambda: not watch.view.instances, within_s=1)
        slowest = max(slowest, time.monotonic() - began)
        await registration.deregister()
    assert slowest < 1


async def test_the_address_of_another_pod_cannot_be_registered(namespace, connect, worker, service):
    await namespace.put_slice("workers-1", [endpoint("127.0.0.2")])
    registry = connect()
    registration = await registry.register(worker.instance(service))
    snapshot = await registry.list(service)
    assert snapshot.instances == ()
    [(_, why)] = snapshot.rejected
    assert "its address 127.0.0.1 is not one of its pod" in why
    await registration.deregister()


async def test_registering_needs_a_pod_of_the_same_namespace(namespace, connect, worker, service):
    outside = connect(access=namespace.access(pod=None))
    with pytest.raises(ConfigurationError, match="set POD_NAME and POD_UID"):
        await outside.register(worker.instance(service))
    elsewhere = connect(access=namespace.access(pod_namespace="ml"))
    with pytest.raises(ConfigurationError, match="its pod is in 'ml'.*use kubernetes://ml"):
        await elsewhere.register(worker.instance(service))
    with pytest.raises(InvalidInstance, match="exceed"):
        await connect().register(worker.instance(service, meta={"note": "x" * 300_000}))
    assert not (await connect().list(service)).known


async def test_a_restored_lease_says_what_the_worker_says(namespace, connect, worker, service):
    await namespace.put_slice("workers-1", [endpoint()])
    registration = await connect().register(worker.instance(service))
    lease = namespace.leases(f"fingerpost-{registration.instance.id}")
    changed = {"metadata": {"annotations": {"fingerpost/instance": "{}"}}}
    await namespace.call("PATCH", lease, changed)

    async def restored():
        return (await connect().list(service)).instances == (registration.instance,)

    await until(restored, within_s=4)
    await registration.deregister()


async def test_a_watch_goes_on_after_the_server_has_ended_it(namespace, connect, worker, service):
    """The server ends each watch; the next one begins where bookmarks say, without a list."""
    await namespace.put_slice("workers-1", [endpoint()])
    registry = connect(watch_config=WatchConfig(wait_s=1))
    watch = registry.watch(service)
    await watch.ready(5)
    await until(lambda: watch.polls >= 3)
    registration = await registry.register(worker.instance(service))
    await until(lambda: watch.view.instances, within_s=2)
    assert registry._informer.lists == 1
    assert watch.errors == 0
    assert time.monotonic() - watch.view.taken_at < 2
    await registration.deregister()


async def test_the_owner_of_a_lease_is_the_pod(namespace, connect, worker, service):
    registration = await connect().register(worker.instance(service))
    read = await namespace.call("GET", namespace.leases(f"fingerpost-{registration.instance.id}"))
    assert read["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": POD.name, "uid": POD.uid}
    ]
    assert read["spec"]["holderIdentity"] == registration.instance.id
    await registration.deregister()


async def test_a_foreign_servers_own_check_is_asked(
    is_real, namespace, service, tmp_path, monkeypatch
):
    """`fingerpost register` beside a server in its pod: the check is the server's."""
    asked, well = [], [False]

    async def ping(request):
        asked.append(request.path_qs)
        return web.Response(status=200 if well[0] else 503)

    app = web.Application()
    app.router.add_get("/ping", ping)
    access = namespace.access()
    cluster = {"server": namespace.server} | (
        {"certificate-authority": namespace.ca_file} if is_real else {}
    )
    (tmp_path / "config").write_text(
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "a", "user": {"token": namespace.token}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "a"}}],
            }
        )
    )
    monkeypatch.setenv("POD_NAME", access.pod.name)
    monkeypatch.setenv("POD_UID", access.pod.uid)
    await namespace.put_slice("workers-1", [endpoint()])
    registry = open_registry(
        f"{namespace.url}?kubeconfig={tmp_path / 'config'}",
        RegistryConfig(check=CheckConfig(path="/ping")),
    )
    async with TestServer(app, host="127.0.0.1") as server:
        port = not_none(server.make_url("/").port)
        made = foreign_instance(service, host="127.0.0.1", port=port)
        registration = await registry.register(made)

        async def known(count):
            return len((await registry.list(service)).instances) == count

        await until(lambda: known(0), within_s=5)
        well[0] = True
        await until(lambda: known(1), within_s=5)
        assert set(asked) == {"/ping"}
        await registration.deregister()
    await registry.aclose()
