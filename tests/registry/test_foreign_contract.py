"""Plain entries in the embedded registry, in a real Consul agent, and in a cluster of servers."""

from __future__ import annotations

from tests.support.waiting import until

from fingerpost.registry import ModelInfo


async def test_a_plain_entry_is_a_worker_as_long_as_its_checks_pass(
    registry, worker, service, raw, url
):
    check = {
        "HTTP": f"http://127.0.0.1:{worker.port}/health/engine",
        "Interval": "1s",
        "Status": "passing",
    }
    entry = {"Name": service, "Address": "127.0.0.1", "Port": worker.port, "Check": check}
    watch = registry.watch(service)
    async with raw.put(f"{url}/v1/agent/service/register", json=entry) as answer:
        assert answer.status == 200, await answer.text()
    await until(lambda: watch.view is not None and len(watch.view.instances) == 1, within_s=4)
    (found,) = watch.view.instances
    catalog = await registry.catalog()
    assert service in catalog.unlisted
    assert service not in catalog.services
    assert found.id == f"{service}-127.0.0.1-{worker.port}"
    assert found.models == (ModelInfo(name=service, versions=()),)
    await registry.set_draining(found.id, "repair")
    await until(lambda: watch.view.instances == (), within_s=4)
    assert found.id in watch.view.withdrawn
    await registry.set_draining(found.id, None)
    await until(lambda: watch.view.instances == (found,), within_s=4)
    worker.healthy = False
    await until(lambda: watch.view.instances == (), within_s=4)
    async with raw.put(f"{url}/v1/agent/service/deregister/{service}") as answer:
        assert answer.status == 200
