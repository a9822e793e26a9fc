"""For how long peers ask to be left alone: what is believed of it, in each place that reads it."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from aiohttp import web
from tests.client.conftest import Server
from tests.support.foreign import static_url

from fingerpost.client import Client, SyncClient
from fingerpost.client.adapters.retrying import _retry_after_s
from fingerpost.errors import DeadlineExceeded, Overloaded, error_from_json
from fingerpost.errors.retry_after import MAX_RETRY_AFTER_S, read_retry_after

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC).timestamp()
NOT_BELIEVED = (
    "9" * 400, "3601", "-5", "1.5", "1e3", "soon", "", " ", "٣", "nan", "x" * 5000, "\0",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 28 Nov 2026 13:00:01 GMT",
    "Sat, 99 Nov 2026 12:00:00 GMT",
)  # fmt: skip


@pytest.mark.parametrize("value", NOT_BELIEVED, ids=lambda each: repr(each[:30]))
def test_what_is_not_believed_was_not_said(value):
    assert read_retry_after(value, NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), ("0007", 7.0), ("60", 60.0), ("3600", MAX_RETRY_AFTER_S),
        ("Sat, 28 Nov 2026 12:00:09 GMT", 9.0), ("Sat, 28 Nov 2026 13:00:09 +0100", 9.0),
        ("Sat, 28 Nov 2026 12:59:00 GMT", MAX_RETRY_AFTER_S),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Saturday, 28-Nov-26 12:00:09 GMT", 9.0), ("Sat Nov 28 12:00:09 2026", 9.0),
    ],
)  # fmt: skip
def test_seconds_and_the_three_forms_of_a_date(value, seconds):
    assert read_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(0.25, 0.25), (90.0, 60.0), (-1.0, 5.0), (1e308, 5.0), (3601.0, 5.0), (None, 5.0)],
)
def test_the_body_of_an_error_counts_before_its_header_if_it_is_believed(said, seconds):
    body = {"error": {"code": "overloaded", "message": "m", "retryable": True}}
    body["error"]["retry_after_s"] = said
    error = error_from_json(json.dumps(body).encode(), status=429, retry_after_s=5.0)
    believed = said is None or 0 <= said <= 3600
    assert error.retry_after_s == (seconds if believed else None)


ABSURD = ("9" * 400, "86400", "-5", "soon", "Fri, 31 Dec 9999 23:59:59 GMT",
          "Wed, 21 Oct 2015 07:28:00 GMT")  # fmt: skip


def once(worker, value: str):
    """Refuse every second request, with a header of that value."""
    count = 0

    async def behave(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count % 2:
            return worker.refuse(Overloaded("full"), Retry_After=value)
        return await worker.answer(request)

    return behave


@pytest.mark.parametrize("value", ABSURD, ids=lambda each: each[:20])
async def test_no_call_ends_for_it(cluster, value):
    [worker] = await cluster.workers("one")
    worker.behave = once(worker, value)
    proxy = await cluster.proxy(worker)
    client = cluster.client_of(proxy)
    assert (await client.classify(b"1", "digits", timeout_s=20)).attempts == 2
    results = [each async for each in client.stream([b"1"] * 4, "digits", timeout_s=20)]
    assert [each.error for each in results] == [None] * 4

    def use() -> int:
        with SyncClient(proxy.url) as sync:
            return sync.classify(b"1", "digits", timeout_s=20).attempts

    assert await asyncio.to_thread(use) == 2
    await client.aclose()


async def test_a_date_is_waited_for(cluster):
    [worker] = await cluster.workers("one")
    loop = asyncio.get_running_loop()
    asked_at: list[float] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        asked_at.append(loop.time())
        if len(asked_at) == 1:
            at = datetime.fromtimestamp(math.ceil(datetime.now(UTC).timestamp()) + 1, UTC)
            date = format_datetime(at, usegmt=True)
            return worker.refuse(Overloaded("full"), Retry_After=date)
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    assert (await client.classify(b"1", "digits")).attempts == 2
    assert 1.0 <= asked_at[1] - asked_at[0] < 4.0


async def test_a_call_that_ends_before_its_deadline_says_so(cluster):
    [worker] = await cluster.workers("one")

    async def behave(request: web.Request) -> web.StreamResponse:
        return worker.refuse(Overloaded("full"), Retry_After="20")

    worker.behave = behave
    client = await cluster.client(worker)
    began = asyncio.get_running_loop().time()
    with pytest.raises(
        DeadlineExceeded,
        match=r"^digits: not before the deadline, which is in (9\.\d+|10) s: all workers "
        r"have asked to be left alone \(Retry-After\), the first for 2[0-9.]+ s more, "
        r"after 1 attempts; the last one failed: full",
    ):
        await client.classify(b"1", "digits", timeout_s=10)
    assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize("status", [429, 503])
async def test_a_foreign_worker_that_says_nonsense_is_busy_all_the_same(status):
    asked: list[int] = []

    async def serve(_: web.Request) -> web.Response:
        asked.append(0)
        if len(asked) < 6:
            return web.Response(status=status, headers={"Retry-After": "9" * 400})
        return web.json_response({"rose": 0.75})

    server = Server(serve)
    await server.start()
    async with Client(static_url(server.port, protocol="form")) as client:
        assert (await client.classify(b"1", "colours", timeout_s=20)).label == "rose"
        assert client.stats.retries == {"overloaded": 5}
        async with client.connect("colours") as worker:
            worker.release("overloaded", retry_after_s=1e300)
        with pytest.raises(DeadlineExceeded, match=r"had asked to be left alone \(Retry-After\)"):
            async with client.connect("colours", timeout_s=0.2):
                pass
    await server.stop()


@pytest.mark.parametrize("value", ["9" * 400, "-5", "soon"])
def test_requests_of_other_http_clients_read_it_by_the_same_rule(value):
    class Answer:
        headers = {"Retry-After": value}  # noqa: RUF012 - as both HTTP clients have it

    assert _retry_after_s(Answer()) is None
    Answer.headers = {"Retry-After": "7"}
    assert _retry_after_s(Answer()) == 7.0
    Answer.headers = {}
    assert _retry_after_s(Answer()) is None
