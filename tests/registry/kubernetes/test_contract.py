"""The contract suite, unchanged, against an API server of Kubernetes.

Its tests reach behind the library's back through Consul's HTTP paths; `Backdoor` does with Leases
what each of these means. A small kubelet of the tests probes the test's worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.registry import (
    test_contract,
    test_document_contract,
    test_identity_contract,
    test_signed_contract,
    test_watch_contract,
)
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.fake_api import TOKEN, FakeApi
from tests.support.kubernetes.namespace import POD, Kubelet, Namespace
from tests.support.optional import not_none

from fingerpost.registry import WatchConfig
from fingerpost.registry.kubernetes.codec import lease_name

for _name, _test in (
    vars(test_contract)
    | vars(test_document_contract)
    | vars(test_watch_contract)
    | vars(test_identity_contract)
    | vars(test_signed_contract)
).items():
    # Every Lease that is read is a Fingerpost worker's: there are no foreign ones here.
    if _name.startswith("test_") and not _name.endswith("_others_are_found_by_their_name"):
        globals()[_name] = _test


async def test_the_catalog_lists_fingerposts_services(registry, worker, service, raw, url):
    foreign = f"other-{service}"
    await test_contract._put(
        raw, url, "/v1/agent/service/register", json={"Name": foreign, "Port": 80}
    )
    watch = registry.watch_catalog()
    assert service not in (await watch.ready(5)).services
    registration = await registry.register(worker.instance(service))
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
    """Looks like an HTTP session to Consul."""

    def __init__(self, namespace):
        self._namespace = namespace

    @contextlib.asynccontextmanager
    async def put(self, url, json=None):
        path = url.partition("/v1/agent/service/")[2]
        if path == "register":
            await self._register(json)
        else:
            name = lease_name(path.removeprefix("deregister/"))
            await self._namespace.call("DELETE", self._namespace.leases(name), ok=(200, 404))
        yield Answer()

    @contextlib.asynccontextmanager
    async def get(self, url):
        name = self._namespace.leases(lease_name(url.rpartition("/")[2]))
        found = await self._namespace.call("GET", name, ok=(200, 404))
        answer = Answer()
        answer.status = 404 if found["kind"] == "Status" else 200
        yield answer

    async def _register(self, entry):
        service = entry["Name"]
        metadata = {"name": f"other-{service}"[:60], "labels": {}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        if "fingerpost" in entry.get("Tags", ()):
            metadata["name"] = lease_name(entry["ID"])
            metadata["labels"] = {
                "app.kubernetes.io/managed-by": "fingerpost",
                "fingerpost/service": service,
            }
            metadata["annotations"] = {"fingerpost/instance": _content(entry)}
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod", "name": POD.name, "uid": POD.uid}
            ]
        await self._namespace.call("POST", self._namespace.leases(), body)


def _content(entry):
    meta = entry["Meta"]
    content = {
        "id": entry["ID"],
        "service": entry["Name"],
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
    return data + "}"


class Restartable:
    """A server that comes back with no memory of anything, and gets the namespace again."""

    url = None

    def __init__(self, server, worker):
        self._server = server
        self._worker = worker
        self._kubelet = self.namespace = None

    async def start(self):
        if isinstance(self._server, FakeApi):
            self._server.forget()
            await self._server.start()
        else:
            self._server.forget()
            await asyncio.to_thread(self._server.start)
        if self.namespace is None:
            ca_file = getattr(self._server, "ca_file", None)
            token = getattr(self._server, "token", TOKEN)
            self.namespace = Namespace(self._server.url, token, ca_file=ca_file)
            self._kubelet = Kubelet(self.namespace, self._worker)
        await self.namespace.create()
        await not_none(self._kubelet).stop()
        await not_none(self._kubelet).start()
        return self.namespace.url

    async def stop(self):
        if self._kubelet is not None:
            await self._kubelet.stop()
        if isinstance(self._server, FakeApi):
            await self._server.stop()
        else:
            await asyncio.to_thread(self._server.stop)

    async def aclose(self):
        await self.stop()
        if self.namespace is not None:
            await self.namespace.aclose()


@pytest.fixture
def own_server(is_real, request, tmp_path):
    """A server of the test's own, not yet started."""
    if not is_real:
        return FakeApi()
    return ApiServer(request.getfixturevalue("kubernetes_programs"), tmp_path / "kubernetes")


@pytest.fixture
async def restartable(own_server, worker):
    restartable = Restartable(own_server, worker)
    yield restartable
    await restartable.aclose()


@pytest.fixture
def space(request):
    """Where the registries of the test are."""
    if "restartable" in request.fixturenames:
        return request.getfixturevalue("restartable")
    request.getfixturevalue("kubelet")
    return request.getfixturevalue("namespace")


@pytest.fixture
def url(space):
    return space.url


@pytest.fixture
def raw(namespace):
    return Backdoor(namespace)


@pytest.fixture
async def connect(space):
    made = []

    def make(url, **arguments):
        arguments.setdefault("keep_alive_s", 0.1)
        arguments.setdefault("watch_config", WatchConfig(wait_s=10, backoff_cap_s=0.2))
        made.append(getattr(space, "namespace", space).registry(url, **arguments))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()
