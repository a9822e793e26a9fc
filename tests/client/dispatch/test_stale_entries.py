"""Workers that are not what their entry in the registry says; against real servers."""

from __future__ import annotations

import contextlib

import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.client.routing import RetryConfig, RoutingConfig
from fingerpost.client.wire import BOOT_ID_HEADER
from fingerpost.errors import (
    DeadlineExceeded,
    FingerpostError,
    MethodNotAllowed,
    Misdirected,
    UnknownModel,
    UnknownPath,
    UnsupportedImage,
)

# One retry in ten seconds, so that a refusal that cost one would show.
ALMOST_NO_RETRIES = RoutingConfig(
    retries=RetryConfig(max_attempts=1, budget_share=0.001, budget_min_per_s=0.01)
)


def refusing(worker, error):
    async def behave(request: web.Request) -> web.Response:
        return worker.refuse(error)

    return behave


def plain(status):
    async def behave(request: web.Request) -> web.Response:
        return web.Response(status=status, text="nothing here")

    return behave


async def test_the_image_names_the_process_that_it_is_meant_for(cluster):
    seen = []
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.Response:
        seen.append(request.headers.get(BOOT_ID_HEADER))
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    await client.classify(b"1", "digits")
    assert seen == [str(worker.boot_id)]


async def test_a_worker_without_a_boot_id_is_sent_none(cluster):
    seen = []
    [worker] = await cluster.workers("one")
    worker.boot_id = 0

    async def behave(request: web.Request) -> web.Response:
        seen.append(request.headers.get(BOOT_ID_HEADER))
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    await client.classify(b"1", "digits")
    assert seen == [None]


@pytest.mark.parametrize(
    "answer",
    [
        UnknownModel("'digits' is not served here"),
        UnknownPath("nothing here"),
        MethodNotAllowed("not that"),
        Misdirected("meant for another process"),
        404,
        405,
        410,
        421,
        501,
    ],
    ids=lambda each: str(each) if isinstance(each, int) else each.code,
)
async def test_another_worker_is_asked_at_once_and_the_stale_one_left_out(cluster, answer):
    ghost, good = await cluster.workers("ghost", "good")
    ghost.behave = plain(answer) if isinstance(answer, int) else refusing(ghost, answer)
    client = await cluster.client(ghost, good, routing=ALMOST_NO_RETRIES)
    results = [await client.classify(b"1", "digits") for _ in range(60)]
    assert {each.worker for each in results} == {"good"}
    assert client.stats.stale_entries == len(ghost.requests) == 1
    assert client.stats.ejections == 1


async def test_a_changed_entry_is_used_again(cluster):
    ghost, good = await cluster.workers("ghost", "good")
    ghost.behave = refusing(ghost, UnknownModel("not served here"))
    client = await cluster.client(ghost, good)
    await until_refused(client)
    ghost.behave = None
    ghost.meta = {"device": "cpu"}
    cluster.proxies[0].publish(ghost, good)
    await until(lambda: client_sees(client, "device"))
    served = {(await client.classify(b"1", "digits")).worker for _ in range(40)}
    assert "ghost" in served
    assert client.stats.stale_entries == 1


async def test_a_model_that_no_worker_serves_is_unknown(cluster):
    workers = await cluster.workers("one", "two", "three")
    for each in workers:
        each.behave = refusing(each, UnknownModel("'digits' is not served here"))
    client = await cluster.client(*workers)
    for _ in range(3):
        with pytest.raises(UnknownModel, match="not served here"):
            await client.classify(b"1", "digits")


async def test_a_model_that_the_last_worker_does_not_serve_is_unknown_beside_other_processes(
    cluster,
):
    workers = await cluster.workers("one", "two", "three")
    errors: list[FingerpostError] = [
        Misdirected("x"),
        UnknownModel("not served here"),
        Misdirected("x"),
    ]
    for each, error in zip(workers, errors, strict=True):
        each.behave = refusing(each, error)
    client = await cluster.client(*workers)
    with pytest.raises(UnknownModel, match="not served here"):
        await client.classify(b"1", "digits")


async def test_where_all_are_other_processes_the_new_entries_are_awaited(cluster):
    ghost, new = await cluster.workers("ghost", "new")
    ghost.behave = refusing(ghost, Misdirected("meant for another process"))
    client = await cluster.client(ghost)
    with pytest.raises(DeadlineExceeded, match="meant for another process"):
        await client.classify(b"1", "digits", timeout_s=0.4)

    async def behave(request: web.Request) -> web.Response:
        cluster.proxies[0].publish(new)
        return ghost.refuse(Misdirected("meant for another process"))

    ghost.behave = behave
    assert (await client.classify(b"1", "digits")).worker == "new"


async def test_a_load_report_of_another_process_is_enough(cluster):
    ghost, good = await cluster.workers("ghost", "good")
    client = await cluster.client(ghost, good)
    await client.classify(b"1", "digits")
    entry = ghost.instance
    ghost.boot_id += 1  # the process behind the address, not the entry
    ghost.behave = refusing(ghost, Misdirected("x"))
    assert client.stats.stale_entries == 0
    asked = len(ghost.requests)
    for _ in range(30):
        assert (await client.classify(b"1", "digits")).worker == "good"
    assert len(ghost.requests) <= asked + 1
    assert entry.boot_id != ghost.boot_id


async def test_a_quick_refusal_is_not_a_sample_of_latency(cluster):
    """Else the worker that refuses every image in no time would attract them all."""
    quick, good = await cluster.workers("quick", "good")
    quick.behave = refusing(quick, UnsupportedImage("not an image"))
    client = await cluster.client(quick, good)
    for _ in range(20):
        with contextlib.suppress(UnsupportedImage):
            await client.classify(b"1", "digits")
    assert quick.requests
    [service] = client._dispatcher._services.values()
    expected = {each.id: each.expected_s_per_mb for each in service.balancer.endpoints}
    assert expected["quick"] == 0 < expected["good"]


async def until_refused(client):
    while not client.stats.stale_entries:
        await client.classify(b"1", "digits")


async def client_sees(client, key):
    snapshot = await client.resolve("digits")
    return any(key in each.meta for each in snapshot.instances)
