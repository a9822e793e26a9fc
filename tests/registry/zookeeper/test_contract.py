"""The contract suite, unchanged, against a real ZooKeeper server.

Its tests reach behind the library's back through Consul's HTTP paths; `Backdoor` does in
ZooKeeper's tree what each of these means.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import kazoo.client
import kazoo.exceptions
import pytest
from tests.registry import (
    test_contract,
    test_document_contract,
    test_identity_contract,
    test_signed_contract,
    test_watch_contract,
)
from tests.support.optional import not_none

from fingerpost.registry import WatchConfig
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

for _name, _test in (
    vars(test_contract)
    | vars(test_document_contract)
    | vars(test_watch_contract)
    | vars(test_identity_contract)
    | vars(test_signed_contract)
).items():
    # What is foreign stands outside the root node here, or beside the services: it is not found.
    if _name.startswith("test_") and not _name.endswith("_others_are_found_by_their_name"):
        globals()[_name] = _test


async def test_the_catalog_lists_fingerposts_services(registry, worker, service, raw, url):
    watch = registry.watch_catalog()
    assert service not in (await watch.ready(5)).services
    registration = await registry.register(worker.instance(service))
    foreign = f"other-{service}"
    await test_contract._put(
        raw, url, "/v1/agent/service/register", json={"Name": foreign, "Port": 80}
    )
    catalog = await registry.catalog()
    assert service in catalog.services
    assert foreign not in (*catalog.services, *catalog.unlisted)
    await registration.deregister()


# A fixture.
keys = test_signed_contract.keys


class Answer:
    status = 200

    async def text(self):
        return ""


class Backdoor:
    """Looks like an HTTP session; a client of ZooKeeper's of its own."""

    def __init__(self, url):
        hosts, _, self._root = url.removeprefix("zookeeper://").partition("/")
        self._root = "/" + self._root
        self._client = kazoo.client.KazooClient(hosts)
        self._client.start()

    def close(self):
        self._client.stop()
        self._client.close()

    @contextlib.asynccontextmanager
    async def put(self, url, json=None):
        path = url.partition("/v1/agent/service/")[2]
        if path == "register":
            await asyncio.to_thread(self._register, json)
        else:
            await asyncio.to_thread(self._forget, path.removeprefix("deregister/"))
        yield Answer()

    @contextlib.asynccontextmanager
    async def get(self, url):
        found = await asyncio.to_thread(self._find, url.rpartition("/")[2])
        answer = Answer()
        answer.status = 200 if found else 404
        yield answer

    def _find(self, entry_id):
        found = []
        with contextlib.suppress(kazoo.exceptions.NoNodeError):
            for service in not_none(self._client.get_children(self._root)):
                with contextlib.suppress(kazoo.exceptions.NoNodeError):
                    names = not_none(self._client.get_children(f"{self._root}/{service}"))
                    found += [
                        f"{self._root}/{service}/{name}" for name in names if name == entry_id
                    ]
        return found

    def _forget(self, entry_id):
        for path in self._find(entry_id):
            for each in (path, path + ":drain", path + ":sick"):
                with contextlib.suppress(kazoo.exceptions.NoNodeError):
                    self._client.delete(each)

    def _register(self, entry):
        service = entry["Name"]
        if "fingerpost" not in entry.get("Tags", ()):
            # What is foreign stands outside the root node; something next to the services too.
            self._client.create(f"/{service}/{service}", b"", ephemeral=True, makepath=True)
            self._client.create(f"{self._root}/not_a_service!{service}", b"", ephemeral=True)
            return
        meta = entry["Meta"]
        content = {
            "id": entry["ID"],
            "service": service,
            "host": entry["Address"],
            "ports": {"http": entry["Port"]},
        }
        if "fingerpost-port-rpc" in meta:
            content["ports"]["rpc"] = meta["fingerpost-port-rpc"]
        data = json.dumps(content)[:-1]
        if "fingerpost-boot-id" in meta:
            data += f', "boot_id": {meta["fingerpost-boot-id"]}'
        pieces = [meta[key] for key in meta if key.startswith("fingerpost-models-")]
        if pieces:
            data += f', "models": {"".join(pieces)}'
        path = f"{self._root}/{service}/{entry['ID']}"
        self._client.create(path, (data + "}").encode(), ephemeral=True, makepath=True)


class Restartable:
    """A server that comes back with no memory of anything."""

    def __init__(self, process):
        self._process = process

    async def start(self):
        self._process.forget()
        await asyncio.to_thread(self._process.start)
        return self._process.url

    async def stop(self):
        await asyncio.to_thread(self._process.stop)


@pytest.fixture
def url(zookeeper_url):
    return zookeeper_url


@pytest.fixture
def raw(url):
    backdoor = Backdoor(url)
    yield backdoor
    backdoor.close()


@pytest.fixture
async def restartable(zookeeper_process):
    restartable = Restartable(zookeeper_process)
    yield restartable
    await restartable.stop()


@pytest.fixture
async def connect():
    made = []

    def make(url, **arguments):
        arguments.setdefault("keep_alive_s", 0.1)
        arguments.setdefault("session_timeout_s", 2.0)
        arguments.setdefault("watch_config", WatchConfig(wait_s=10, backoff_cap_s=0.2))
        made.append(ZooKeeperRegistry(url, **arguments))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()
