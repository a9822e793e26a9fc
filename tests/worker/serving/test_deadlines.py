"""Long deadlines, which have no timer of their own."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from fingerpost.errors import DeadlineExceeded
from fingerpost.worker.serving.deadlines import Deadlines
from tests.support.colours import encoded
from tests.support.http import post_request, raw_connection, read_answer
from tests.support.rig import serving
from tests.support.waiting import until


async def test_whatever_is_waited_for_ends_at_the_deadline_again_and_again() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for _ in range(3):  # of one connection, whose task goes on
        at = loop.time() + 0.02
        with pytest.raises(DeadlineExceeded), deadlines.until(at):
            await asyncio.Event().wait()
        assert loop.time() >= at
        assert task.cancelling() == 0
    with pytest.raises(KeyError), deadlines.until(loop.time() + 0.02):
        raise KeyError
    with deadlines.until(loop.time()):
        pass
    scheduler = deadlines._scheduler
    assert scheduler is not None
    await until(lambda: scheduler._timer is None)  # it has nothing left to cancel
    assert task.cancelling() == 0


async def test_a_client_that_leaves_is_not_a_deadline() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    inside = asyncio.Event()

    async def work(left_s: float) -> None:
        with deadlines.until(loop.time() + left_s):
            inside.set()
            await asyncio.Event().wait()

    for left_s in (60.0, 0.0):
        inside.clear()
        task = asyncio.create_task(work(left_s))
        await inside.wait()
        if not left_s:
            scheduler = deadlines._scheduler
            assert scheduler is not None
            scheduler._check_all()  # both at once
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_request_ends_at_its_long_deadline() -> None:
    whole = post_request("/v1/classify/colours", encoded("red"), "Fingerpost-Deadline-Ms: 1000")
    async with serving() as rig, raw_connection(rig.port) as (reader, writer):
        for _ in range(3):
            writer.write(whole)
            assert (await read_answer(reader))[0] == 200
        began = time.monotonic()
        writer.write(whole[:-1])
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["error"]["code"]) == (504, "deadline")
        assert time.monotonic() >= began + 0.99
        await until(lambda: rig.service.admission.rif == 0)
