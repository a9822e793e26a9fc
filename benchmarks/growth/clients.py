"""`python -m benchmarks.growth.clients URL COUNT SECONDS`: real clients of the library.

Prints as JSON the memory that each took once it had sent an image, and, where there are seconds,
how many images the first of them then sent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import AsyncExitStack

from benchmarks.growth.fleet import SERVICE
from benchmarks.harness.processes import resident_bytes
from fingerpost.client import Client

_IMAGE = bytes(20_000)
_CONNECTIONS = 8


async def main(url: str, count: int, seconds: float) -> None:
    """Make them, weigh them, send, print."""
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(Client(url))
        await sender.classify(_IMAGE, SERVICE)  # what is loaded once for all
        before = _held()
        for _ in range(count):
            await (await stack.enter_async_context(Client(url))).classify(_IMAGE, SERVICE)
        found = {"bytes": (_held() - before) / count if count else 0, "images": 0}
        until = time.monotonic() + seconds

        async def send() -> None:
            while time.monotonic() < until:
                await sender.classify(_IMAGE, SERVICE)
                found["images"] += 1

        await asyncio.gather(*(send() for _ in range(_CONNECTIONS)))
    print(json.dumps(found))


def _held() -> int:
    gc.collect()
    return resident_bytes(os.getpid())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
