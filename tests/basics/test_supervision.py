"""A background task that meets an unexpected exception goes on."""

from __future__ import annotations

import asyncio

import pytest

from fingerpost.basics.supervision import UNEXPECTED_ERRORS, count_unexpected, supervise


async def test_it_begins_again_and_is_counted(caplog):
    begun = []
    before = UNEXPECTED_ERRORS["test begins again"]

    async def work():
        begun.append(1)
        if len(begun) < 4:
            raise RecursionError("too deep")

    async with asyncio.timeout(5):
        await supervise(work, "test begins again", pause_s=0.001)
    assert len(begun) == 4
    assert UNEXPECTED_ERRORS["test begins again"] - before == 3
    assert caplog.text.count("test begins again: unexpected error") == 1, "logged once"
    assert "RecursionError: too deep" in caplog.text


async def test_cancellation_ends_it():
    waiting = asyncio.Event()

    async def work():
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervise(work, "test cancelled"))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert UNEXPECTED_ERRORS["test cancelled"] == 0


def test_each_kind_is_logged(caplog):
    for kind in ("test one", "test two", "test one"):
        count_unexpected(kind, ValueError(kind))
    assert caplog.text.count("unexpected error") == 2
