"""Tenants and classes, by real requests to a real worker, over all protocols."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from fingerpost.client.frames import STREAM_TYPE
from fingerpost.security.caller import Caller, Rights
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.worker.engine.batching.config import BatchingConfig
from tests.support.colours import encoded
from tests.support.http import raw_connection
from tests.support.leases import KEY, verifier
from tests.support.rig import serving
from tests.support.waiting import until
from tests.worker.serving.test_lease_gate import PATHS

IMAGE = encoded("red")
BATCH = {"Fingerpost-Class": "batch"}


def of(tenant: str, **rights: Any) -> dict[str, str]:
    """The headers of a tenant with a lease."""
    signer = LeaseSigner(lambda: KEY, LeaseConfig(), time.time)
    token = signer.sign(Caller(tenant=tenant, rights=Rights(**rights)), "colours").token
    return {"Authorization": f"Bearer {token}"}


async def ask(http: aiohttp.ClientSession, headers: dict[str, str], path: str = "/") -> Any:
    body = PATHS.get(path, IMAGE)
    async with http.post(path, data=body, headers=headers) as response:
        found = await response.json()
        return response.status, found.get("error") if isinstance(found, dict) else None


@pytest.mark.parametrize("path", list(PATHS))
async def test_the_flow_of_a_request_goes_with_each_image(path: str) -> None:
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        seen = []
        submit = rig.engine._batcher.submit

        def watched(*args: Any, **options: Any) -> Any:
            flow = options["flow"]
            seen.append((flow.tenant, flow.rank, flow.weight))
            return submit(*args, **options)

        rig.engine._batcher.submit = watched  # type: ignore[method-assign]
        assert (await ask(http, of("acme", weight=3), path))[0] == 200
        assert (await ask(http, {**of("acme", weight=3), **BATCH}, path))[0] == 200
        assert (await ask(http, of("nightly", classes=("batch",)), path))[0] == 200
    assert seen == [("acme", 0, 3.0), ("acme", 1, 3.0), ("nightly", 1, 1.0)]


async def test_a_class_that_is_not_known_or_not_allowed_is_refused_by_the_headers() -> None:
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        status, error = await ask(http, {**of("a"), "Fingerpost-Class": "urgent"})
        assert (status, error["code"]) == (400, "invalid_request")
        assert "interactive, batch" in error["message"]
        status, error = await ask(http, {**of("a", classes=("interactive",)), **BATCH})
        assert (status, error["code"]) == (403, "forbidden")
        assert rig.backend.seen == 0
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:
        assert (await ask(http, BATCH))[0] == 200
        assert (await ask(http, {}))[0] == 200
        async with http.get("/metrics") as response:
            text = await response.text()
    assert 'tenant_images_total{class="batch",tenant="default"} 1.0' in text
    assert 'class="interactive"' not in text  # what costs nothing is not counted


async def test_a_limit_is_named_and_says_when_to_come_back_and_others_go_on() -> None:
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        slow = of("slow", images_per_s=2)
        assert [(await ask(http, slow))[0] for _ in range(3)] == [200, 200, 200]
        async with http.post("/v1/classify/colours", data=IMAGE, headers=slow) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (429, "overloaded")
            assert (error["limit"], error["retryable"]) == ("images_per_s", True)
            assert 0 < error["retry_after_s"] <= 0.5
            assert response.headers["Retry-After"] == "1"
        assert (await ask(http, of("other")))[0] == 200
        await asyncio.sleep(error["retry_after_s"] + 0.05)
        assert (await ask(http, slow))[0] == 200
        async with http.get("/metrics") as response:
            text = await response.text()
    refused = 'refused_requests_total{class="interactive",limit="images_per_s",tenant="slow"} 1.0'
    assert refused in text


async def test_requests_in_flight_are_limited_and_freed() -> None:
    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        rig.backend.gate.clear()
        few = of("few", max_in_flight=1)
        first = asyncio.create_task(ask(http, few))
        await until(lambda: rig.rif == 1)
        status, error = await ask(http, few)
        assert (status, error["limit"]) == (429, "max_in_flight")
        rig.backend.gate.set()
        assert (await first)[0] == 200
        assert (await ask(http, few))[0] == 200
        assert rig.service._tenancy.limits._in_flight == 0


async def test_a_body_of_unknown_length_is_no_larger_than_the_lease_says() -> None:
    async def pieces() -> Any:
        yield IMAGE

    async with serving(leases=verifier()) as rig, aiohttp.ClientSession(rig.url) as http:
        headers = of("acme", max_body_bytes=50)
        async with http.post("/", data=pieces(), headers=headers) as response:
            assert response.status == 413


async def test_a_stream_over_its_rate_is_not_read_and_loses_nothing() -> None:
    """Six images at 4 a second, the first four of which are a burst."""
    async with serving(leases=verifier()) as rig, raw_connection(rig.port) as (reader, writer):
        token = of("slow", images_per_s=4)["Authorization"]
        writer.write(
            b"POST /v1/stream/colours HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + f"Content-Type: {STREAM_TYPE}\r\nAuthorization: {token}\r\n\r\n".encode()
        )
        frame = b"\0\0\0\0" + len(IMAGE).to_bytes(4, "big") + IMAGE
        began = time.monotonic()
        writer.write(b"%x\r\n%b\r\n" % (6 * len(frame), 6 * frame) + b"0\r\n\r\n")
        async with asyncio.timeout(20):
            answer = await reader.read()
        took_s = time.monotonic() - began
    assert answer.count(b'"predictions"') == 6
    assert b"overloaded" not in answer
    assert took_s > 0.2
    assert rig.service._tenancy.limits._in_flight == 0


async def test_the_queue_is_not_one_tenants_and_others_are_not_asked_to_wait_for_it() -> None:
    """A tenant fills the queue, and its requests were refused; another one has its places."""
    batching = BatchingConfig(max_batch=4, max_queue=8)
    async with (
        serving(leases=verifier(), batching=batching) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        rig.backend.gate.clear()
        greedy, honest = of("greedy"), of("honest")
        tasks = [asyncio.create_task(ask(http, greedy)) for _ in range(30)]
        await until(lambda: sum(task.done() for task in tasks) >= 15)
        assert {task.result()[0] for task in tasks if task.done()} == {429}
        mine = [asyncio.create_task(ask(http, honest)) for _ in range(3)]
        await until(lambda: rig.engine._batcher._order.counts and len(rig.engine._batcher) == 8)
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in mine)
        rig.backend.gate.set()
        assert [status for status, _ in await asyncio.gather(*mine)] == [200] * 3
        await asyncio.gather(*tasks)


async def test_load_reports_say_by_class_what_is_there_once_there_are_several() -> None:
    async with serving() as rig, aiohttp.ClientSession(rig.url) as http:

        async def load() -> Any:
            async with http.get("/load") as response:
                return await response.json()

        assert (await ask(http, {}))[0] == 200
        assert "classes" not in await load()
        rig.backend.gate.clear()
        later = [asyncio.create_task(ask(http, BATCH)) for _ in range(6)]
        await until(lambda: rig.rif == 6)
        first = asyncio.create_task(ask(http, {}))
        await until(lambda: rig.rif == 7)
        await asyncio.sleep(0.01)  # a forecast is used again for half a millisecond
        report = await load()
        assert report["rif"] == 7
        assert {name: each["rif"] for name, each in report["classes"].items()} == {
            "interactive": 1,
            "batch": 7,
        }
        rig.backend.gate.set()
        assert {status for status, _ in await asyncio.gather(first, *later)} == {200}
        async with http.post("/", data=IMAGE) as response:
            assert "named_metrics.class_rif.batch=" in response.headers["endpoint-load-metrics"]
