"""Classes and a tenant's limits, as a client meets them; against real servers."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.client import Client, SyncClient
from fingerpost.errors import ConfigurationError, DeadlineExceeded, Overloaded
from fingerpost.registry import LoadReport
from fingerpost.registry.load import ClassLoad


def noting(worker) -> list[str | None]:
    """The class of each request that comes, in their order."""
    seen: list[str | None] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Fingerpost-Class"))
        return await worker.answer(request)

    worker.behave = behave
    return seen


def rated(worker, rate: float) -> list[float]:
    """Refuses what is over a rate, as a worker does by a lease; returns the times of refusals."""
    refused: list[float] = []
    free_at = 0.0

    async def behave(request: web.Request) -> web.StreamResponse:
        nonlocal free_at
        now = time.monotonic()
        if now < free_at:
            refused.append(now)
            error = Overloaded("slow down", retry_after_s=free_at - now, limit="images_per_s")
            return worker.refuse(error, Retry_After="1")
        free_at = max(now - 1 / rate, free_at) + 1 / rate
        return await worker.answer(request)

    worker.behave = behave
    return refused


async def test_the_class_is_the_clients_or_the_calls_and_none_by_default(cluster):
    [worker] = await cluster.workers("one")
    seen = noting(worker)
    client = await cluster.client(worker)
    await client.classify(b"1", "digits")
    await client.classify(b"1", "digits", priority="batch")
    _ = [each async for each in client.stream([b"1"], "digits", priority="urgent")]
    client._priority = "night"
    await client.classify(b"1", "digits")
    await client.classify(b"1", "digits", priority="batch")
    assert seen == [None, "batch", "urgent", "night", "batch"]
    assert client.stats.lookups == client._dispatcher._services["digits"].watch.polls


@pytest.mark.parametrize("wrong", ["", "Batch", "a b", "a\r\nb", 7])
async def test_what_cannot_be_a_class_is_said_at_once(cluster, wrong):
    for kind in (Client, SyncClient):
        with pytest.raises(ConfigurationError, match="is not a valid class"):
            kind("http://127.0.0.1:9", priority=wrong)
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    with pytest.raises(ConfigurationError, match="is not a valid class"):
        await client.classify(b"1", "digits", priority=wrong)


async def test_a_tenants_rate_is_backpressure_and_no_failure(cluster):
    """40 images at 50 a second, with few refusals, and no retry budget spent."""
    [worker] = await cluster.workers("one")
    refused = rated(worker, 50)
    client = await cluster.client(worker)
    began = time.monotonic()
    results = await asyncio.gather(*(client.classify(b"1", "digits") for _ in range(40)))
    took_s = time.monotonic() - began
    assert {each.label for each in results} == {"1"}
    assert 0.7 < took_s < 3
    assert len(refused) <= 40 + 2 * 40
    assert client.stats.ejections == 0


async def test_other_tenants_and_classes_of_the_process_are_not_held_up(cluster):
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Fingerpost-Class") == "batch":
            error = Overloaded("slow down", retry_after_s=5.0, limit="images_per_s")
            return worker.refuse(error, Retry_After="5")
        return await worker.answer(request)

    worker.behave = behave
    client, other = await cluster.client(worker), await cluster.client(worker)
    waiting = asyncio.create_task(client.classify(b"1", "digits", priority="batch", timeout_s=3))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    for each in (client, other, client):
        assert (await each.classify(b"1", "digits")).label == "1"
    assert time.monotonic() - began < 1
    with pytest.raises(DeadlineExceeded, match="slow down"):
        await waiting


async def test_a_worker_without_rate_left_is_passed_by(cluster):
    slow, good = await cluster.workers("slow", "good")
    refused = rated(slow, 0.2)
    client = await cluster.client(slow, good)
    results = [await client.classify(b"1", "digits") for _ in range(40)]
    assert sum(each.worker == "good" for each in results) >= 38
    assert len(refused) <= 2


async def test_interactive_images_are_routed_past_queued_batch_work(cluster):
    """One worker has much batch work, the other some interactive work; 2 ms an image if alone."""
    busy, idle = await cluster.workers("busy", "idle")
    queued = {busy: {"interactive": 0, "batch": 90}, idle: {"interactive": 30, "batch": 30}}

    def seconds(worker, name: str) -> float:
        return 0.002 * (1 + queued[worker][name] / 4)

    def behave_like(worker) -> None:
        plain = worker.report

        def report() -> LoadReport:
            classes = {
                name: ClassLoad(rif=rif, expected_s=seconds(worker, name))
                for name, rif in queued[worker].items()
            }
            whole = classes["batch"]
            return msgspec.structs.replace(
                plain(),
                slots=4,
                rif=whole.rif,
                expected_s=whole.expected_s,
                alone_s=0.002,
                classes=classes,
            )

        async def behave(request: web.Request) -> web.StreamResponse:
            name = request.headers.get("Fingerpost-Class", "interactive")
            await asyncio.sleep(seconds(worker, name))
            return await worker.answer(request)

        worker.report, worker.behave = report, behave

    behave_like(busy)
    behave_like(idle)
    client = await cluster.client(busy, idle)
    for priority, best in ((None, "busy"), ("interactive", "busy"), ("batch", "idle")):
        for _ in range(10):
            await client.classify(b"1", "digits", priority=priority)
        results = [await client.classify(b"1", "digits", priority=priority) for _ in range(40)]
        assert sum(each.worker == best for each in results) >= 30, priority


async def test_a_probe_carries_the_lease_and_the_class_of_its_images(cluster):
    """So that the report is about that tenant's images."""
    one, two = await cluster.workers("one", "two")
    seen = set()
    for worker in (one, two):

        async def note(request: web.Request, answer=worker._answer_load) -> web.StreamResponse:
            lease = request.headers.get("Authorization")
            seen.add((lease, request.headers.get("Fingerpost-Class")))
            return await answer(request)

        worker.answer_load = note
    client = await cluster.client(one, two, lease="a.b.c")
    for priority in (None, "batch"):
        await client.classify(b"1", "digits", priority=priority)
    await until(lambda: len(seen) == 2)
    assert seen == {("Bearer a.b.c", None), ("Bearer a.b.c", "batch")}
    plain = await cluster.client(one, two)
    seen.clear()
    await plain.classify(b"1", "digits", priority="batch")
    await until(lambda: bool(seen))
    assert seen == {(None, None)}
