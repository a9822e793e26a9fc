"""What is sent again to another worker, and what is not; against real servers on free ports."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.client import Client
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    DeadlineExceeded,
    Draining,
    ModelFailed,
    Overloaded,
    Unreachable,
)


def reset(worker, status=None):
    async def behave(request: web.Request) -> web.Response:
        await request.content.readany()
        not_none(request.transport).abort()
        return web.Response()

    return behave


def silent(worker):
    async def behave(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    worker.answer_load = behave
    return behave


def refusing(error, **headers):
    def make(worker):
        async def behave(request: web.Request) -> web.Response:
            return worker.refuse(error, **headers)

        return behave

    return make


def garbage(**response):
    def make(worker):
        async def behave(request: web.Request) -> web.Response:
            return web.Response(**response)

        return behave

    return make


def cut_answer(worker):
    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"model":')
        not_none(request.transport).abort()
        return response

    return behave


def retryable_500(worker):
    async def behave(request: web.Request) -> web.Response:
        error = ModelFailed("out of memory")
        error.retryable = True
        return worker.refuse(error)

    return behave


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(reset, "unreachable", id="reset in the middle of a request"),
        pytest.param(cut_answer, "bad_answer", id="answer cut off"),
        pytest.param(silent, "unreachable", id="silent"),
        pytest.param(refusing(Draining("leaving")), "draining", id="draining"),
        pytest.param(refusing(Overloaded("full")), "overloaded", id="overloaded"),
        pytest.param(refusing(Overloaded("full"), Retry_After="9"), "overloaded", id="retry-after"),
        pytest.param(refusing(BadAnswer("upstream")), "bad_answer", id="502"),
        pytest.param(garbage(status=502, text="<html>"), "bad_answer", id="502 of a stranger"),
        pytest.param(garbage(text="hello"), "bad_answer", id="garbage with 200"),
        pytest.param(
            garbage(text='{"model":"m","version":"1","results":[]}'), "bad_answer", id="no result"
        ),
        pytest.param(retryable_500, "model_failed", id="retryable 500"),
    ],
)
async def test_another_worker_answers(cluster, make, code):
    bad, good = await cluster.workers("bad", "good")
    bad.behave = make(bad)
    client = await cluster.client(bad, good, response_timeout_s=0.2)
    tried_bad = False
    while not tried_bad:
        result = await client.classify(b"x" * 300_000, "digits")
        assert result.worker == "good"
        assert result.attempts <= 2
        tried_bad = result.attempts == 2
    assert client.stats.retries == {code: 1}


async def test_a_refused_connection_ejects_at_once(cluster):
    gone, good = await cluster.workers("gone", "good")
    client = await cluster.client(gone, good)
    await gone.server.stop()
    results = [await client.classify(b"1", "digits") for _ in range(40)]
    assert {each.worker for each in results} == {"good"}
    assert client.stats.retries.get("unreachable", 0) <= 1


async def test_a_single_worker_that_comes_back_is_used_again(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    await client.classify(b"1", "digits")
    await worker.server.stop()
    call = asyncio.create_task(client.classify(b"12", "digits"))
    await until(lambda: client.stats.retries.get("unreachable", 0) >= 3)
    replacement = await cluster.worker("one-again")
    worker.server, worker.boot_id = replacement.server, 77
    cluster.proxies[0].publish(worker)
    assert (await call).label == "2"


async def test_the_deadline_ends_it_with_the_last_error_as_cause(cluster):
    [worker] = await cluster.workers("one")
    client = await cluster.client(worker)
    await client.classify(b"1", "digits")
    await worker.server.stop()
    with pytest.raises(DeadlineExceeded, match="digits: no answer by the deadline") as caught:
        await client.classify(b"1", "digits", timeout_s=0.3)
    assert isinstance(caught.value.__cause__, Unreachable)


async def test_a_worker_that_is_too_slow_meets_the_deadline(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = silent(worker)
    client = await cluster.client(worker)
    with pytest.raises(DeadlineExceeded, match="give more time"):
        await client.classify(b"1", "digits", timeout_s=0.1)


async def test_the_deadline_says_what_it_waited_for(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = silent(worker)
    client = await cluster.client(worker)
    with pytest.raises(DeadlineExceeded, match=f"{worker.instance.address} had not answered yet"):
        await client.classify(b"1", "digits", timeout_s=0.2)
    async with Client("127.0.0.1:9") as lost:
        with pytest.raises(DeadlineExceeded, match=r"where the workers are: no proxy answered; "):
            await lost.classify(b"1", "digits", timeout_s=0.3)


async def test_retry_after_is_honoured(cluster):
    [worker] = await cluster.workers("one")
    asked_at: list[float] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        asked_at.append(asyncio.get_running_loop().time())
        if len(asked_at) == 1:
            return worker.refuse(Overloaded("full"), Retry_After="1")
        return await worker.answer(request)

    worker.behave = behave
    client = await cluster.client(worker)
    result = await client.classify(b"1", "digits")
    assert result.attempts == 2
    assert 1.0 <= asked_at[1] - asked_at[0] < 1.5


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(cluster):
    [worker] = await cluster.workers("one")
    worker.behave = refusing(Overloaded("full"), Retry_After="20")(worker)
    client = await cluster.client(worker)
    with pytest.raises(DeadlineExceeded) as caught:
        await client.classify(b"1", "digits", timeout_s=10)
    assert isinstance(caught.value.__cause__, Overloaded)
    assert len(worker.requests) == 1


async def test_an_overloaded_worker_may_refuse_before_it_has_read_the_body(cluster):
    bad, good = await cluster.workers("bad", "good")
    bad.behave = refusing(Overloaded("full"))(bad)
    client = await cluster.client(bad, good)
    for _ in range(5):
        assert (await client.classify(b"x" * 20_000_000, "digits")).worker == "good"


@pytest.mark.parametrize("error", [BrokenImage("half of it"), ModelFailed("NaN")])
async def test_what_another_worker_would_say_too_is_not_retried(cluster, error):
    workers = await cluster.workers("one", "two")
    for each in workers:
        each.behave = refusing(error)(each)
    client = await cluster.client(*workers)
    with pytest.raises(type(error), match=str(error)):
        await client.classify(b"1", "digits")
    assert client.stats.attempts == 1
