"""What a real API server cannot be made to do at will: shown by one in this process."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.kubernetes.fake_api import TOKEN
from tests.support.kubernetes.namespace import Namespace, endpoint
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import NotARegistry, RegistryDenied, RegistryError
from fingerpost.registry import WatchConfig
from fingerpost.registry.credentials import Token
from fingerpost.registry.kubernetes import lists, reflector


@pytest.fixture
async def namespace(fake):
    space = Namespace(fake.url, TOKEN)
    await space.create()
    await space.put_slice("workers-1", [endpoint()])
    yield space
    await space.aclose()


async def test_one_watch_of_each_kind_however_many_callers(fake, connect, service, worker):
    registry = connect()
    watches = [registry.watch(f"{service}-{number}") for number in range(20)]
    watches.append(registry.watch_catalog())
    for each in watches:
        await each.ready(5)
    registration = await registry.register(worker.instance(f"{service}-7"))
    await until(lambda: watches[7].view.instances)
    await until(lambda: watches[20].view.services == (f"{service}-7",))
    assert fake.watches == 2
    assert fake.requests.count("list leases") == 1
    assert watches[3].changes == 1, "a change concerns the watches of its service only"
    await registration.deregister()


async def test_a_registration_writes_nothing_while_nothing_changes(fake, connect, worker, service):
    registration = await connect(keep_alive_s=0.02).register(worker.instance(service))
    await until(lambda: fake.requests.count("get leases") >= 20)
    writes = [each for each in fake.requests if each.endswith(" leases") and "get" not in each]
    assert writes == ["create leases"]
    await registration.deregister()


async def test_a_version_that_is_gone_is_listed_again_and_nothing_is_missed(
    fake, connect, worker, service
):
    registry = connect(watch_config=WatchConfig(wait_s=1, self_preservation=None))
    watch = registry.watch(service)
    await watch.ready(5)
    registration = await registry.register(worker.instance(service))
    await until(lambda: watch.view.instances)
    for round_ in range(2, 5):
        await registration.deregister()
        await until(lambda: not watch.view.instances)
        registration = await registry.register(worker.instance(service, f"n{round_}"))
        fake.gone = {"leases", "endpointslices"}
        await until(lambda n=round_: registry._informer.lists >= n, within_s=5)
        wanted = [registration.instance.id]
        await until(lambda w=wanted: ids(watch.view) == w)
    assert watch.errors == 0, "it is not a failure"
    assert registry._informer.lists <= 6
    await registration.deregister()


async def test_a_version_that_is_always_gone_is_not_asked_for_in_a_loop(fake, connect, service):
    fake.forgetful = True
    watch = connect(watch_config=WatchConfig(backoff_base_s=0.5)).watch(service)
    await watch.ready(5)
    await asyncio.sleep(1)
    assert fake.requests.count("list leases") < 20


async def test_pages_of_a_long_list_are_put_together(fake, connect, worker, service, monkeypatch):
    monkeypatch.setattr(lists, "_PAGE", 3)
    registry = connect()
    made = [await registry.register(worker.instance(service, f"n{n}")) for n in range(10)]
    assert len((await registry.list(service)).instances) == 10
    assert fake.requests.count("list leases") == 4
    for each in made:
        await each.deregister()


async def test_an_old_server_is_read_and_its_upgrade_too(fake, connect, worker, service):
    fake.versions = {"v1beta1"}
    registry = connect(watch_config=WatchConfig(wait_s=1, backoff_cap_s=0.1))
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    await watch.ready(5)
    assert watch.view.instances
    assert watch.errors == 0
    fake.versions = {"v1"}
    await until(lambda: watch.errors, within_s=5)
    await until(lambda: watch.error is None, within_s=5)
    assert watch.view.instances
    assert ids(await registry.list(service)) == [registration.instance.id]
    await registration.deregister()
    fake.versions = set()
    with pytest.raises(RegistryError, match="could not find the requested resource"):
        await registry.list(service)


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [
        ("list", "leases", "coordination.k8s.io"),
        ("list", "endpointslices", "discovery.k8s.io"),
        ("create", "leases", "coordination.k8s.io"),
        ("patch", "leases", "coordination.k8s.io"),
        ("delete", "leases", "coordination.k8s.io"),
        ("get", "configmaps", ""),
    ],
)
async def test_a_missing_right_is_named(fake, connect, worker, service, verb, resource, group):
    registry = connect()
    registration = await registry.register(worker.instance(service))
    calls = {
        "list": lambda: registry.list(service),
        "create": lambda: registry.register(worker.instance(service, "2")),
        "patch": lambda: registry.set_draining(registration.instance.id, "new disk"),
        "delete": registration.deregister,
        "get": lambda: registry.document("lease-keys"),
    }
    fake.denied.add((TOKEN, f"{verb} {resource}"))
    with pytest.raises(RegistryDenied) as denied:
        await calls[verb]()
    assert f"Missing right: the verb {verb!r} on {resource!r}" in str(denied.value)
    assert group in str(denied.value)
    assert "deploy/kubernetes" in str(denied.value)
    fake.denied.clear()
    await registration.deregister()


async def test_a_watch_that_is_not_allowed_says_so_and_keeps_the_view(
    fake, connect, worker, service
):
    registry = connect(watch_config=WatchConfig(wait_s=1, backoff_cap_s=0.1))
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    await watch.ready(5)
    await until(lambda: watch.view.instances)
    fake.denied.add((TOKEN, "watch endpointslices"))
    await until(lambda: watch.error, within_s=5)
    assert "the verb 'watch' on 'endpointslices'" in str(watch.error)
    assert watch.view.instances == (registration.instance,)
    fake.denied.clear()
    await until(lambda: watch.error is None, within_s=5)
    await registration.deregister()


async def test_a_rotated_token_is_read_again(fake, connect, namespace, worker, service, tmp_path):
    """Kubernetes puts a new token into a new folder, and turns a link to it."""
    fake.tokens |= {"first"}
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "token").write_text("first")
    (tmp_path / "data").symlink_to("1")
    token = Token(file=str(tmp_path / "data" / "token"))
    registry = connect(
        access=namespace.access(token=token),
        watch_config=WatchConfig(wait_s=1, backoff_cap_s=0.1),
    )
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    await watch.ready(5)
    fake.tokens = {TOKEN, "second"}
    with pytest.raises(RegistryDenied, match="the token is not accepted"):
        await registry.list(service)
    await until(lambda: watch.error, within_s=5)
    assert watch.view.instances
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "token").write_text("second")
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").replace(tmp_path / "data")
    assert ids(await registry.list(service)) == [registration.instance.id]
    await until(lambda: watch.error is None, within_s=5)
    await registration.deregister()


async def test_a_watch_that_hangs_is_given_up(fake, connect, service, monkeypatch):
    monkeypatch.setattr(reflector, "_SLACK_S", 0.1)
    fake.hangs = True
    watch = connect(watch_config=WatchConfig(wait_s=1, backoff_cap_s=0.1)).watch(service)
    await watch.ready(5)
    await until(lambda: watch.error, within_s=5)
    assert "did not end" in str(watch.error)
    fake.hangs = False
    await until(lambda: watch.error is None, within_s=5)


async def test_another_server_is_named(connect, namespace, worker, service):
    other = Namespace(f"http://127.0.0.1:{worker.port}", "x")
    registry = other.registry()
    with pytest.raises(NotARegistry, match="no Status of Kubernetes"):
        await registry.list(service)
    await registry.aclose()
    await other.aclose()
