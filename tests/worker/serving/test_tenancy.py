"""Tenants and classes, by real requests to a real worker, over all protocols."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import aiohttp
import pytest

from fingerpost.client.frames import STREAM_TYPE
from fingerpost.security.caller import Caller, Rights
from fingerpost.security.grant import NO_LIMITS
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.worker.config import RequestConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from tests.support.colours import encoded
from tests.support.http import post_request, raw_connection
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


async def ask(
    http: aiohttp.ClientSession, headers: dict[str, str], path: str = "/", body: bytes = b""
) -> Any:
    async with http.post(path, data=body or PATHS.get(path, IMAGE), headers=headers) as response:
        found = await response.json()
        return response.status, found.get("error") if isinstance(found, dict) else None


def stream_of(images: list[bytes], headers: dict[str, str]) -> bytes:
    """The bytes of a whole stream."""
    frames = b"".join(b"\0\0\0\0" + len(each).to_bytes(4, "big") + each for each in images)
    return (
        b"POST /v1/stream/colours HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        + f"Content-Type: {STREAM_TYPE}\r\nAuthorization: {headers['Authorization']}".encode()
        + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(frames), frames)
    )


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
        assert [(await ask(http, slow))[0] for _ in range(2)] == [200, 200]
        while True:  # more than those two if they took half a second
            async with http.post("/v1/classify/colours", data=IMAGE, headers=slow) as response:
                if response.status != 200:
                    error = (await response.json())["error"]
                    break
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


async def test_slow_uploads_of_one_tenant_leave_memory_for_the_others() -> None:
    """Bodies that never end, of a tenant that sends as many as it may, by requests and streams."""
    limits = RequestConfig(max_bytes=100_000, max_memory_bytes=300_000)
    padded = IMAGE + bytes(30_000 - len(IMAGE))
    async with (
        serving(leases=verifier(), requests=limits) as rig,
        aiohttp.ClientSession(rig.url) as http,
        contextlib.AsyncExitStack() as stack,
    ):
        memory = rig.service.memory
        token = of("greedy")["Authorization"]
        whole = post_request("/v1/classify/colours", padded, f"Authorization: {token}")
        slow = await stack.enter_async_context(contextlib.AsyncExitStack())
        for held in (*range(29_999, 200_000, 29_999), 200_000):
            _, writer = await slow.enter_async_context(raw_connection(rig.port))
            writer.write(whole[: held - memory.used - len(padded)])
            await until(lambda held=held: memory.used == held)
        status, error = await ask(http, of("greedy"), body=padded)
        assert (status, error["limit"], error["retryable"]) == (429, "share_of_memory", True)
        assert "tenant 'greedy' has its share" in error["message"]
        for tenant in ("honest", "another"):
            assert await ask(http, of(tenant), body=padded) == (200, None)
        # A stream of that tenant is not read meanwhile, and one of another is.
        streams = {}
        async with asyncio.timeout(20):
            for tenant in ("greedy", "honest"):
                reader, writer = await stack.enter_async_context(raw_connection(rig.port))
                writer.write(stream_of([padded], of(tenant)))
                await reader.readuntil(b"heartbeat_s")
                streams[tenant] = reader
            await streams["honest"].readuntil(b'"predictions"')
            await until(lambda: memory.used == memory._tenants["greedy"] == 200_000)
            await slow.aclose()
            await streams["greedy"].readuntil(b'"predictions"')
        await until(lambda: memory.used == 0)
        assert not memory._tenants
        assert await ask(http, of("greedy"), body=padded) == (200, None)


async def test_an_image_that_a_stream_has_in_part_counts_and_ends_it_if_no_memory_is_left() -> None:
    limits = RequestConfig(max_bytes=100_000, max_memory_bytes=300_000, body_timeout_s=0.5)
    padded = IMAGE + bytes(90_000 - len(IMAGE))
    whole = stream_of([padded], of("slow"))
    part = whole.index(bytes(4)) + 40_000
    async with serving(leases=verifier(), requests=limits) as rig:
        memory = rig.service.memory
        for others, says in ((0, b'"predictions"'), (240_000, b"no memory for the image")):
            memory.hold(NO_LIMITS, others)
            async with raw_connection(rig.port) as (reader, writer):
                writer.write(whole[:part])
                await until(lambda: memory._tenants["slow"] == 40_000)
                writer.write(whole[part:])
                async with asyncio.timeout(10):
                    assert says in await reader.read()
            await until(lambda others=others: memory.used == others)
            assert not memory._tenants


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
        began = time.monotonic()
        writer.write(stream_of([IMAGE] * 6, of("slow", images_per_s=4)))
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
        tasks = [asyncio.create_task(ask(http, greedy))]
        await until(lambda: rig.engine.running_s() > 0, "one runs, and takes no more with it")
        tasks += [asyncio.create_task(ask(http, greedy)) for _ in range(29)]
        await until(lambda: sum(task.done() for task in tasks) == 21, "8 places are taken")
        assert {task.result()[0] for task in tasks if task.done()} == {429}
        mine = [asyncio.create_task(ask(http, honest)) for _ in range(3)]
        await until(lambda: sum(task.done() for task in tasks) == 24, "three gave their places")
        assert len(rig.engine._batcher) == 8
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


async def test_a_report_says_what_an_image_of_the_askers_tenant_would_wait() -> None:
    """A tenant's queue is no load for another one; who shows no lease sees all."""
    async with (
        serving(leases=verifier(), batching=BatchingConfig(max_batch=2)) as rig,
        aiohttp.ClientSession(rig.url) as http,
    ):
        greedy, honest = of("greedy"), of("honest")

        async def load(headers: dict[str, str]) -> Any:
            async with http.get("/load", headers=headers) as response:
                assert response.status == 200
                return await response.json()

        assert (await ask(http, greedy))[0] == (await ask(http, honest))[0] == 200
        for size in (1, 2) * 20:  # far longer than this test takes
            rig.engine._batcher._latency.observe(size, 10.0 * size)
        assert "tenants" not in await load(honest)
        rig.backend.gate.clear()
        tasks = [asyncio.create_task(ask(http, greedy)) for _ in range(40)]
        await until(lambda: rig.rif == 40 and len(rig.engine._batcher) >= 38)
        await asyncio.sleep(0.01)  # a forecast is used again for half a millisecond
        own, other = await load(greedy), await load(honest)
        assert "tenants" not in own
        assert other["tenants"] == 2
        assert own["expected_s"] > 390
        assert other["expected_s"] < 60
        batch = await load({**honest, **BATCH})
        assert (batch["tenants"], batch["expected_s"] > 390) == (2, True)
        wrong = {**honest, "Fingerpost-Class": "no-such-class"}
        for headers in (of("new"), {"Authorization": "Bearer forged"}, wrong):
            assert (await load(headers))["expected_s"] < 60
        whole = await load({})
        assert (whole["rif"], whole["expected_s"] > 390, "tenants" in whole) == (40, True, False)
        rig.backend.gate.set()
        assert {status for status, _ in await asyncio.gather(*tasks)} == {200}
