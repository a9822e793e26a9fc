"""A server that has EndpointSlices of v1beta1 only, with their validation."""

from __future__ import annotations

import pytest
from tests.registry.kubernetes.test_registry import address, instance, pod, put_pods
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.namespace import Namespace, endpoint
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.registry import WatchConfig


@pytest.fixture
def old_server(kubernetes_programs, tmp_path):
    server = ApiServer(kubernetes_programs, tmp_path / "kubernetes", version="v1beta1")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def old_namespace(old_server):
    space = Namespace(
        old_server.url, old_server.token, ca_file=old_server.ca_file, version="v1beta1"
    )
    await space.create()
    yield space
    await space.aclose()


async def test_slices_of_v1beta1_are_read_and_watched(old_namespace, service):
    await put_pods(old_namespace, service, 120, zone=False)
    config = WatchConfig(wait_s=2, self_preservation=None)
    registry = old_namespace.registry(watch_config=config, check_config=None)
    watch = registry.watch(service)
    assert len((await watch.ready(10)).instances) == 120
    assert len((await registry.list(service)).instances) == 120
    rest = [endpoint(address(n), pod(n), ready=n != 100) for n in range(100, 120)]
    rest[3]["topology"] = {"topology.kubernetes.io/zone": "b"}
    await old_namespace.put_slice("workers-100", rest)
    await until(lambda: len(watch.view.instances) == 119, within_s=1)
    assert instance(service, 100).id not in ids(watch.view)
    assert {each.zone for each in watch.view.instances} == {"", "b"}
    assert watch.errors == 0
    await registry.aclose()
