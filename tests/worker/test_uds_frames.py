"""Arrays of NumPy from a client on the worker's host, which go as they are."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fingerpost.client import Classification, Client, ClientConfig
from fingerpost.errors import UnknownModel
from tests.support.same_host import Here, here
from tests.support.standby import Colours
from tests.support.waiting import until

pytestmark = pytest.mark.shell

RNG = np.random.default_rng(7)
FRAME = RNG.integers(0, 255, (90, 160, 3), dtype=np.uint8)


class Encoded:
    """A model that decodes images itself."""

    labels = ("png", "other")
    encoded = True

    def predict(self, batch: Any) -> Any:
        png = [bytes(each).startswith(b"\x89PNG") for each in batch]
        return np.array([[float(each), 1.0 - each] for each in png], np.float32)


class Gated(Colours):
    """Waits for its gate, once it is warm."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, batch: np.ndarray) -> np.ndarray:
        assert self.gate.wait(30)
        return super().predict(batch)


def of(one: Here, **config: Any) -> Client:
    return Client(registry=one.registry, config=ClientConfig(**config))


def memory() -> int:
    """How many frames' memory this process has mapped, for clients and workers."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("memfd:fingerpost-frame" in line for line in lines)


@pytest.mark.parametrize("layout", ["plain", "reversed channels", "every second row", "one pixel"])
async def test_the_answer_is_that_of_a_png(short_folder: Path, layout: str) -> None:
    frame = {
        "plain": FRAME,
        "reversed channels": FRAME[:, :, ::-1],
        "every second row": FRAME[::2],
        "one pixel": FRAME[:1, :1],
    }[layout]
    async with here(short_folder, Colours()) as one:
        async with of(one, uds=False) as client:
            png = await client.classify(frame, "flowers")
            assert client.stats.bytes_sent > 0
        async with of(one) as client:
            mapped = await client.classify(frame, "flowers")
            assert client.stats.bytes_sent == 0
            assert mapped.image_bytes == frame.nbytes
            dispatcher: Any = client._dispatcher
            # What the routing goes by: without megabytes an answer would be no sample.
            assert dispatcher._services["flowers"]._mb > 0
            inferred = await client.infer(frame, "flowers@1")
            assert client.stats.bytes_sent == 0
        assert mapped.predictions == png.predictions
        assert isinstance(inferred, Classification)
        assert inferred.predictions == png.predictions
    assert memory() == 0


async def test_memory_is_used_again_and_given_back(short_folder: Path) -> None:
    async with here(short_folder, Colours()) as one, of(one) as client:
        frames = [np.full((60, 80, 3), value, np.uint8) for value in range(0, 250, 5)]
        results = [each async for each in client.stream(frames, "flowers", concurrency=4)]
        assert [each.error for each in results] == [None] * 50
        assert client.stats.bytes_sent == 0
        await until(lambda: memory() <= 8)  # those of four images, and what was read ahead
        kept = memory()
        await client.classify(frames[0], "flowers")
        assert memory() == kept
        await client.classify(FRAME, "flowers")  # of another size: those of the former are not kept
        assert memory() == 1
    assert memory() == 0


async def test_memory_that_a_worker_may_still_read_is_not_used_again(short_folder: Path) -> None:
    model = Gated()
    async with here(short_folder, model) as one, of(one) as client:
        await client.classify(FRAME, "flowers")
        model.gate.clear()
        given_up = asyncio.create_task(client.classify(FRAME, "flowers"))
        try:
            side: Any = one.worker._require_running().side
            engine: Any = side.service._manager.engines()[0]
            await until(engine.running_s)
            given_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await given_up
            transport: Any = client._transport
            assert not any(transport._memory._idle.values())
        finally:
            model.gate.set()
        assert (await client.classify(FRAME, "flowers")).label
    assert memory() == 0


async def test_a_model_that_wants_it_encoded_gets_png(short_folder: Path) -> None:
    async with here(short_folder, Encoded()) as one, of(one) as client:
        for _ in range(2):
            result = await client.classify(FRAME, "flowers")
            assert (result.label, result.attempts) == ("png", 1)
        transport: Any = client._transport
        assert transport._unfit == {(one.worker.instance.target, "flowers")}
        assert memory() == 1
    assert memory() == 0


async def test_without_the_socket_for_frames_it_is_png(short_folder: Path) -> None:
    async with here(short_folder, Colours()) as one, of(one) as client:
        moved = one.path.with_name("fingerpost.moved")
        frames = one.path.with_name(f"{one.path.name}.frames")
        frames.rename(moved)
        assert (await client.classify(FRAME, "flowers")).attempts == 1
        assert client.stats.bytes_sent > 0
        moved.rename(frames)


async def test_a_worker_that_closed_the_socket_is_connected_again(short_folder: Path) -> None:
    async with here(short_folder, Colours()) as one, of(one) as client:
        await client.classify(FRAME, "flowers")
        side: Any = one.worker._require_running().side
        frames: Any = side.service.frames
        for number in list(frames._senders):
            frames._drop(number)
        await client.classify(FRAME, "flowers")
        assert client.stats.bytes_sent == 0


async def test_errors_are_those_of_other_images(short_folder: Path) -> None:
    async with here(short_folder, Colours()) as one, of(one) as client:
        await client.classify(FRAME, "flowers")
        with pytest.raises(UnknownModel):
            await client.classify(FRAME, "flowers@9")
        gray = FRAME[:, :, 0]
        assert (await client.classify(gray, "flowers")).label
        assert client.stats.bytes_sent > 0  # as PNG


def test_a_machine_without_descriptors_to_send_imports_it_all() -> None:
    """Windows has no `fcntl`, and macOS no memfds."""
    code = (
        "import sys; sys.modules['fcntl'] = None; import fingerpost.client;"
        "import fingerpost.client.images.frames, fingerpost.worker.serving.frames"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
