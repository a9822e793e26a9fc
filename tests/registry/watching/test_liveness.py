"""Asking workers: real sockets, one small server for every way to answer."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from fingerpost.registry import Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.http.app import bind, json_response, serve
from fingerpost.registry.watching.liveness import LivenessProbe
from fingerpost.registry.watching.self_preservation import ProbeResult

BOOT_ID = 4711


def report(state=WorkerState.READY, boot_id=BOOT_ID):
    return LoadReport(rif=0, slots=1, state=state, boot_id=boot_id, seq=1)


async def _hang(_):
    await asyncio.Event().wait()


async def _cut(request):
    request.transport.abort()
    return web.Response()


async def _trickle(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.Event().wait()


def _answer(**arguments):
    async def handle(_):
        return web.Response(**arguments)

    return handle


def _report(**fields):
    async def handle(_):
        return json_response(report(**fields))

    return handle


ANSWERS = {
    "ready": (_report(), ProbeResult.READY),
    "starting": (_report(state=WorkerState.STARTING), ProbeResult.GONE),
    "draining": (_report(state=WorkerState.DRAINING), ProbeResult.GONE),
    "failed": (_report(state=WorkerState.FAILED), ProbeResult.GONE),
    "another process": (_report(boot_id=BOOT_ID + 1), ProbeResult.GONE),
    "hangs": (_hang, ProbeResult.UNRESPONSIVE),
    "stops midway": (_trickle, ProbeResult.UNRESPONSIVE),
    "cuts the connection": (_cut, ProbeResult.UNRESPONSIVE),
    "no such path": (_answer(status=404), ProbeResult.GONE),
    "fault": (_answer(status=500), ProbeResult.UNRESPONSIVE),
    "overloaded proxy before it": (_answer(status=503), ProbeResult.UNRESPONSIVE),
    "redirect": (_answer(status=302, headers={"Location": "/load"}), ProbeResult.GONE),
    "no JSON": (_answer(text="<html>"), ProbeResult.GONE),
    "other JSON": (_answer(text='{"rif": 1}'), ProbeResult.GONE),
    "no UTF-8": (_answer(body=b'{"rif": "\xff"}'), ProbeResult.GONE),
    "deep JSON": (_answer(text="[" * 20000), ProbeResult.GONE),
    "huge": (_answer(text=" " * 200_000), ProbeResult.GONE),
}


@pytest.fixture
async def start_server():
    runners = []

    async def start(handle) -> Instance:
        app = web.Application()
        app.router.add_get("/load", handle)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        runners.append(runner)
        await serve(runner, bind("127.0.0.1", 0))
        return instance(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


def instance(port, host="127.0.0.1", boot_id=BOOT_ID):
    return Instance(
        id=f"flowers-{port}",
        service="flowers",
        host=host,
        ports={"http": port},
        models=(ModelInfo(name="flowers", versions=("1",)),),
        boot_id=boot_id,
    )


@pytest.fixture
async def liveness():
    liveness = LivenessProbe(timeout_s=0.3)
    yield liveness
    await liveness.aclose()


@pytest.mark.parametrize(("handle", "word"), ANSWERS.values(), ids=ANSWERS)
async def test_what_an_answer_means(start_server, liveness, handle, word):
    started = time.monotonic()
    assert await liveness.probe(await start_server(handle)) is word
    assert time.monotonic() - started < 2


async def test_nobody_listens(liveness, free_port):
    assert await liveness.probe(instance(free_port)) is ProbeResult.GONE


async def test_a_name_that_does_not_resolve_is_silent(liveness):
    assert await liveness.probe(instance(1, host="nobody.invalid")) is ProbeResult.UNRESPONSIVE


async def test_any_boot_id_will_do_where_none_was_registered(start_server, liveness):
    served = await start_server(_report())
    assert await liveness.probe(instance(served.ports["http"], boot_id=0)) is ProbeResult.READY


async def test_a_hundred_that_hang_are_asked_a_bounded_number_at_once(start_server):
    at_once, most = 0, 0

    async def hang(request):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await _hang(request)
        finally:
            at_once -= 1

    liveness = LivenessProbe(timeout_s=0.1)
    served = await start_server(hang)
    words = await asyncio.gather(*(liveness.probe(served) for _ in range(100)))
    await liveness.aclose()
    assert set(words) == {ProbeResult.UNRESPONSIVE}
    assert most <= 32


async def test_a_cancelled_question_is_no_answer(start_server, liveness):
    asked = asyncio.Event()

    async def hang(request):
        asked.set()
        await _hang(request)

    liveness = LivenessProbe(timeout_s=60)
    question = asyncio.create_task(liveness.probe(await start_server(hang)))
    await asked.wait()
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    await liveness.aclose()


async def test_it_can_be_used_after_closing(start_server, liveness):
    served = await start_server(_report())
    assert await liveness.probe(served) is ProbeResult.READY
    await liveness.aclose()
    await liveness.aclose()
    assert await liveness.probe(served) is ProbeResult.READY
