"""Scrape targets from snapshots."""

from __future__ import annotations

import re

from tests.proxy.world import World

from fingerpost.proxy.prometheus import TargetGroup, target_groups
from fingerpost.registry import Instance, ModelInfo, Snapshot


def snapshot(service: str, *ports: int) -> Snapshot:
    instances = tuple(
        Instance(
            id=f"{service}-{port}",
            service=service,
            host="fd00::2",
            ports={"http": port},
            models=(ModelInfo(name=service, versions=("1",)),),
            zone="east",
        )
        for port in ports
    )
    return Snapshot(service=service, instances=instances, known=True, index=1, taken_at=0.0)


def test_a_worker_of_several_models_is_one_target() -> None:
    groups = target_groups([snapshot("flowers", 2, 1), snapshot("digits", 1), snapshot("birds")])
    assert groups == [
        TargetGroup(
            targets=(f"[fd00::2]:{port}",),
            labels={
                "__meta_fingerpost_services": services,
                "__meta_fingerpost_zone": "east",
                "__meta_fingerpost_device": "",
            },
        )
        for port, services in ((1, ",digits,flowers,"), (2, ",flowers,"))
    ]


async def test_prometheus_gets_each_worker_once(world: World) -> None:
    """The format: https://prometheus.io/docs/prometheus/latest/http_sd/."""
    async with world.http.get("/v1/prometheus/targets") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.json() == []
    await world.add("a", zone="rack-1", meta={"device": "cpu"})
    await world.add("b")
    await world.until(2)
    async with world.http.get("/v1/prometheus/targets") as response:
        groups = await response.json()
    assert {each["targets"][0]: each["labels"] for each in groups} == {
        f"127.0.0.1:{world.workers[name].port}": {
            "__meta_fingerpost_services": ",digits,",
            "__meta_fingerpost_zone": zone,
            "__meta_fingerpost_device": device,
        }
        for name, zone, device in (("a", "rack-1", "cpu"), ("b", "", ""))
    }
    async with world.http.get("/metrics") as response:
        metrics = await response.text()
    assert re.search(r"^process_resident_memory_bytes \d", metrics, re.MULTILINE)
    assert re.search(r'^fingerpost_build_info\{python="3\.\d', metrics, re.MULTILINE)
