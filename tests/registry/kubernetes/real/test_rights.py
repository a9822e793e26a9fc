"""The Roles of deploy/kubernetes/rbac.yaml are enough, and none of their rules is too much."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support.kubernetes.namespace import endpoint
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import RegistryDenied
from fingerpost.registry.credentials import Token
from fingerpost.registry.documents import LEASE_KEYS

RBAC = Path(__file__).parents[4] / "deploy" / "kubernetes" / "rbac.yaml"
_PATHS = {
    "Role": "rbac.authorization.k8s.io/v1/roles",
    "RoleBinding": "rbac.authorization.k8s.io/v1/rolebindings",
    "ConfigMap": "v1/configmaps",
    "ServiceAccount": "v1/serviceaccounts",
}


@pytest.fixture
async def account(namespace):
    """Apply the file; makes the access of a service account with one of its Roles."""
    for body in yaml.safe_load_all(RBAC.read_text()):
        for subject in body.get("subjects", ()):
            subject["namespace"] = namespace.name  # as kustomize does
        await namespace.call("POST", namespace.path(_PATHS[body["kind"]]), body)
    await namespace.put_slice("workers-1", [endpoint()])

    async def make(role):
        path = namespace.path("v1/serviceaccounts")
        name = f"user-{role}"
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        await namespace.call("POST", path, body, ok=(201, 409))
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": f"fingerpost-{role}",
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}],
        }
        await namespace.call("POST", namespace.path(_PATHS["RoleBinding"]), binding, ok=(201, 409))
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = await namespace.call("POST", f"{path}/{name}/token", request)
        return namespace.access(token=Token(made["status"]["token"]))

    return make


async def test_a_worker_may_register_and_no_more(account, connect, worker, service):
    registry = connect(access=await account("worker"))
    await until(lambda: _allowed(registry))
    registration = await registry.register(worker.instance(service, boot_id=7))
    await registration.update(worker.instance(service, boot_id=7, weight=2))
    await registration.drain("leaving")
    await registration.undrain()
    await registry.remove_stale(worker.instance(service, "2", boot_id=8))
    assert await registry.document(LEASE_KEYS) is None
    await registration.deregister()
    with pytest.raises(RegistryDenied, match="the verb 'list' on 'endpointslices'"):
        await registry.list(service)
    with pytest.raises(RegistryDenied, match="the verb 'patch' on 'configmaps'"):
        await registry.publish(LEASE_KEYS, b"{}")
    with pytest.raises(RegistryDenied, match="the verb 'get' on 'configmaps'"):
        await registry.document("other")


async def test_a_reader_may_watch_and_write_nothing(account, connect, worker, service):
    registration = await connect().register(worker.instance(service))
    registry = connect(access=await account("reader"))
    await until(lambda: _allowed(registry))
    watch = registry.watch(service)
    assert ids(await watch.ready(5)) == [registration.instance.id]
    assert service in (await registry.watch_catalog().ready(5)).services
    assert ids(await registry.list(service)) == [registration.instance.id]
    assert await registry.document(LEASE_KEYS) is None
    with pytest.raises(RegistryDenied, match="the verb 'create' on 'leases' of the API group"):
        await registry.register(worker.instance(service, "2"))
    with pytest.raises(RegistryDenied, match="the verb 'patch' on 'leases'"):
        await registry.set_draining(registration.instance.id, "new disk")
    await registration.deregister()


async def test_an_operator_may_drain_and_publish_keys(account, connect, worker, service):
    registration = await connect().register(worker.instance(service))
    registry = connect(access=await account("operator"))
    await until(lambda: _allowed(registry))
    await registry.set_draining(registration.instance.address, "new disk")
    assert ids(await registry.list(service)) == []
    await registry.set_draining(registration.instance.id, None)
    assert ids(await registry.list(service)) == [registration.instance.id]
    await registry.publish(LEASE_KEYS, b'{"keys": []}')
    assert await registry.document(LEASE_KEYS) == b'{"keys": []}'
    await registration.deregister()


@pytest.mark.parametrize(
    ("resource", "verb"),
    [(each, verb) for each in ("leases", "endpointslices") for verb in ("list", "watch")],
    ids=str,
)
async def test_the_right_that_is_taken_away_is_named(
    account, namespace, connect, worker, service, resource, verb
):
    access = await account("reader")
    path = f"{namespace.path(_PATHS['Role'])}/fingerpost-reader"
    role = await namespace.call("GET", path)
    for rule in role["rules"]:
        if resource in rule["resources"]:
            rule["verbs"].remove(verb)
    await namespace.call("PATCH", path, {"rules": role["rules"]})
    watch = connect(access=access).watch(service)
    wanted = f"the verb {verb!r} on {resource!r}"
    await until(lambda: wanted in str(watch.error), wanted, within_s=10)


async def _allowed(registry):
    """The API server's authorizer knows the Roles some milliseconds later."""
    try:
        await registry.catalog()
    except RegistryDenied:
        return False
    return True
