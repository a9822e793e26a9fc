"""What the embedded registry writes down."""

from __future__ import annotations

import json
from pathlib import Path

from fingerpost.registry.embedded import EmbeddedRegistry


async def test_registrations_removals_and_refusals_are_written(raw, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    async with EmbeddedRegistry(port=0, audit_log=str(file)) as registry:
        service = f"{registry.url}/v1/agent/service"
        body = json.dumps({"ID": "w1", "Name": "flowers", "Address": "127.0.0.1", "Port": 1})
        for method, path, more in (
            ("PUT", "register", {"data": body}),
            ("PUT", "register", {"data": b"\xff"}),
            ("PUT", "maintenance/w1?enable=true&reason=x", {}),
            ("PUT", "maintenance/w1?enable=false", {}),
            ("PUT", "maintenance/w9?enable=true", {}),
            ("PUT", "deregister/w1%0A%22x%1B[2J", {}),
            ("PUT", "register", {"data": body, "headers": {"Origin": "http://evil.example"}}),
            ("GET", "w1", {}),
        ):
            async with raw.request(method, f"{service}/{path}", **more) as answer:
                await answer.read()
        async with raw.get(f"{registry.url}/metrics") as answer:
            metrics = await answer.text()
    assert 'fingerpost_audit_events_total{result="done"} 4.0' in metrics
    assert 'fingerpost_refusals_total{reason="origin"} 1.0' in metrics
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(each["action"], each["target"], each["result"]) for each in found] == [
        ("register", "w1", "done"),
        ("register", "", "failed"),
        ("maintenance on", "w1", "done"),
        ("maintenance off", "w1", "done"),
        ("maintenance on", "w9", "failed"),
        ("deregister", r'w1\n"x\x1b[2J', "done"),
        ("PUT /v1/agent/service/register", "/v1/agent/service/register", "refused"),
    ]
    assert {each["from"] for each in found} == {"127.0.0.1"}


async def test_a_registry_that_starts_again_writes_on(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    registry = EmbeddedRegistry(port=0, audit_log=str(file))
    for _ in range(2):
        await registry.start()
        await registry.aclose()
