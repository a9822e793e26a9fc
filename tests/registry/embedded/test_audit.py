"""What the embedded registry writes down."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
from tests.support.certificates import TRUST_DOMAIN, Authority

from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.tls import TlsConfig


async def test_registrations_removals_and_refusals_are_written(raw, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    async with EmbeddedRegistry(port=0, audit_log=str(file)) as registry:
        service = f"{registry.url}/v1/agent/service"
        body = json.dumps({"ID": "w1", "Name": "flowers", "Address": "127.0.0.1", "Port": 1})
        for method, path, more in (
            ("PUT", "register", {"data": body}),
            ("PUT", "register", {"data": body.lower()}),  # as the worker's client writes it
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
    assert 'fingerpost_audit_events_total{result="done"} 5.0' in metrics
    assert 'fingerpost_refusals_total{reason="origin"} 1.0' in metrics
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(each["action"], each["target"], each["result"]) for each in found] == [
        ("register", "w1", "done"),
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


async def test_a_client_certificate_is_written(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    server, worker = ca.issue("server"), ca.worker("flowers")
    tls = TlsConfig(cert=str(server.cert), key=str(server.key), client_ca=str(ca.file))
    context = ssl.create_default_context(cafile=str(ca.file))
    await asyncio.to_thread(context.load_cert_chain, worker.cert, worker.key)
    file = tmp_path / "audit.log"
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        EmbeddedRegistry(port=0, tls=tls, audit_log=str(file)) as registry,
        aiohttp.ClientSession(registry.url, connector=connector) as http,
        http.put("/v1/agent/service/register", json={"name": "flowers"}) as answer,
    ):
        assert answer.status == 200
    (line,) = map(json.loads, file.read_text().splitlines())
    assert (line["target"], line["result"]) == ("flowers", "done")
    assert line["detail"] == f"certificate of spiffe://{TRUST_DOMAIN}/fingerpost/worker/flowers"
