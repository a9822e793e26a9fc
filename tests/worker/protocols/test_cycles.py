"""What a failed request held is free at once, and not when Python next looks for cycles.

An image's pixels are no reason for Python to look: 63 MB of them, held by an error that held itself
by its traceback, stayed for thousands of requests.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL.Image import Image

from fingerpost.errors import FingerpostError
from tests.support.rig import serving
from tests.worker.protocols.fuzz import attempt
from tests.worker.protocols.fuzz_same_host import cleared
from tests.worker.protocols.fuzz_server import SETTINGS


@pytest.fixture
def unreachable() -> Iterator[list[object]]:
    """What only the search for cycles can free, from now on and once `gc.collect` was called."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


# aiohttp says of a bad part header what the answer says too.
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionParam")
async def test_no_request_leaves_a_cycle(unreachable: list[object], short_folder: Path) -> None:
    uds = str(short_folder / "http.sock")
    async with serving(uds=uds, **SETTINGS) as rig:
        for seed in range(400):
            await asyncio.to_thread(attempt, rig.port, seed, uds)
        cleared()
        gc.collect()
        kinds = (FingerpostError, Image, bytearray, mmap.mmap)
        left = Counter(type(each).__name__ for each in unreachable if isinstance(each, kinds))
        assert not left
