"""Suspect images at a worker: one at a time, with nothing beside one, and the client is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from fingerpost.client.wire import SUSPECT_HEADER
from fingerpost.worker.engine.batching import batch_sizes
from tests.support.colours import encoded
from tests.support.rig import Rig, serving
from tests.support.waiting import until

_HEAD = "POST /v1/classify/colours HTTP/1.1\r\nHost: worker\r\nContent-Length: {}\r\n{}\r\n"
_BEGUN = b"HTTP/1.1 102 Processing\r\n\r\n"


class _Line:
    """One connection, and what has come on it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.got = b""

    async def send(self, colour: str, *fields: str) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._rig.port)
        image = encoded(colour)
        head = _HEAD.format(len(image), "".join(f"{each}\r\n" for each in fields))
        self._writer.write(head.encode() + image)
        self._task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            self.got += data

    async def aclose(self) -> None:
        self._writer.close()
        await self._task

    @property
    def answered(self) -> bool:
        return b"HTTP/1.1 200 OK" in self.got


_SUSPECT = f"{SUSPECT_HEADER}: 1"


async def test_a_client_is_told_when_its_suspect_image_is_begun() -> None:
    async with serving() as rig:
        for path in range(2):  # the second time, it is on the fast path
            line = _Line(rig)
            await line.send("red", _SUSPECT)
            await until(lambda line=line: line.answered, "answered")
            assert line.got.startswith(_BEGUN), path
            await line.aclose()
        line = _Line(rig)
        await line.send("red")
        await until(lambda: line.answered, "answered")
        assert b"102" not in line.got.partition(b"\r\n")[0]
        await line.aclose()


async def test_suspect_images_are_begun_one_at_a_time() -> None:
    async with serving() as rig:
        rig.backend.gate.clear()
        lines = [_Line(rig) for _ in range(3)]
        for line in lines:
            await line.send("red", _SUSPECT)
        await until(lambda: rig.rif == 3, "all were admitted")
        await until(lambda: any(line.got for line in lines), "one is begun")
        assert [line.got for line in lines].count(_BEGUN) == 1
        assert [line.got for line in lines].count(b"") == 2
        rig.backend.gate.set()
        await until(lambda: all(line.answered for line in lines), "all are answered")
        assert all(line.got.startswith(_BEGUN) for line in lines)
        for line in lines:
            await line.aclose()


async def test_a_suspect_image_waits_a_second_and_then_goes_with_the_others() -> None:
    """The one before it hangs; it is not said to be begun, as it is not alone."""
    async with serving() as rig:
        rig.backend.gate.clear()
        first, second = _Line(rig), _Line(rig)
        await first.send("red", _SUSPECT)
        await until(lambda: first.got == _BEGUN, "the first is begun")
        await until(lambda: rig.engine.running_s() > 0, "the first runs")
        await second.send("blue", _SUSPECT)
        await until(lambda: rig.engine.ready == 1, "the second waits for the model")
        assert second.got == b""
        rig.backend.gate.set()
        await until(lambda: first.answered and second.answered, "both are answered")
        assert b"102" not in second.got.partition(b"\r\n")[0]
        await first.aclose()
        await second.aclose()


async def test_suspect_images_of_a_slow_model_wait_for_longer() -> None:
    """They went together after a second, so that one that ends its worker took others with it."""
    async with serving() as rig:
        assert rig.engine.alone_limit_s == 1
        for _ in range(4):
            rig.engine._batcher.sizes._latency.observe(1, 0.6)
        assert rig.engine.alone_limit_s == pytest.approx(2.4, rel=0.1)
        rig.backend.gate.clear()
        first, second = _Line(rig), _Line(rig)
        await first.send("red", _SUSPECT)
        await until(lambda: first.got == _BEGUN, "the first is begun")
        await until(lambda: rig.engine.running_s() > 0, "the first runs")
        began = time.monotonic()
        await second.send("blue", _SUSPECT)
        await until(lambda: rig.engine.ready == 1, "the second goes with the others")
        assert 2 < time.monotonic() - began < 5
        rig.backend.gate.set()
        for line in (first, second):
            await until(lambda line=line: line.answered, "answered")
            await line.aclose()


async def test_nothing_is_decoded_or_run_beside_a_suspect_image() -> None:
    async with serving() as rig:
        rig.backend.gate.clear()
        before, suspect = _Line(rig), _Line(rig)
        await before.send("green")
        await until(lambda: rig.engine.running_s() > 0, "a batch runs")
        await suspect.send("red", _SUSPECT)
        await until(lambda: suspect.got == _BEGUN, "it is its turn")
        others = [_Line(rig) for _ in range(4)]
        for line in others:
            await line.send("blue")
        await until(lambda: rig.engine.queued == 5, "all wait")
        assert rig.engine.ready == 0  # not even decoded
        assert rig.engine.decoding_since() == []
        seen = []
        predict = rig.backend.predict

        def recorded(images):
            seen.append(len(images))
            return predict(images)

        rig.backend.predict = recorded  # type: ignore[method-assign]
        rig.backend.gate.set()
        lines = [before, suspect, *others]
        await until(lambda: all(line.answered for line in lines), "all are answered")
        assert seen[0] == 1
        assert sum(seen) == 5
        for line in lines:
            await line.aclose()


async def _held_up(rig: Rig) -> tuple[_Line, _Line, _Line]:
    """An image that runs until `gate` is set, a suspect one behind it, and another behind both."""
    rig.backend.gate.clear()
    before, suspect, other = _Line(rig), _Line(rig), _Line(rig)
    await before.send("green")
    await until(lambda: rig.engine.running_s() > 0, "a batch runs")
    await suspect.send("red", _SUSPECT)
    await until(lambda: suspect.got == _BEGUN, "it is its turn")
    await other.send("blue")
    await until(lambda: rig.engine.queued == 2, "both wait")
    return before, suspect, other


async def test_what_is_behind_a_suspect_image_that_hangs_goes_on_after_a_second() -> None:
    async with serving() as rig:
        before, suspect, other = await _held_up(rig)
        assert rig.engine.ready == 0
        await until(lambda: rig.engine.ready == 2, "both are decoded, although the model hangs")
        rig.backend.gate.set()
        for line in (before, suspect, other):
            await until(lambda line=line: line.answered, "answered")
            await line.aclose()


@pytest.mark.parametrize("cut", [False, True], ids=["answered", "the client went away"])
async def test_a_suspect_image_that_is_over_holds_nobody_up(
    cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is not the time that ends it.
    monkeypatch.setattr(batch_sizes, "ALONE_S", 9.0)
    async with serving() as rig:
        before, suspect, other = await _held_up(rig)
        if cut:
            await suspect.aclose()
        else:
            rig.backend.gate.set()
            await until(lambda: suspect.answered, "answered")
        await until(
            lambda: rig.engine.ready == 1 or other.answered, "the other is decoded", within_s=0.9
        )
        rig.backend.gate.set()
        await until(lambda: other.answered, "answered")
        for line in (before, other) if cut else (before, suspect, other):
            await line.aclose()
