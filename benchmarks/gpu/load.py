"""`python -m benchmarks.gpu.load`: one process that POSTs images to workers in turn."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path

import aiohttp

from benchmarks.gpu.crew import begin_together

_WARM_UP_S = 2.0


def main() -> None:
    """Connect, begin together, run, print counts and latencies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(_run(arguments))))


async def _run(arguments: argparse.Namespace) -> dict[str, object]:
    bodies = [path.read_bytes() for path in arguments.images]
    latencies_ms: list[float] = []
    failed = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(url: str, first: int, until: float, *, counted: bool) -> None:
            nonlocal failed
            for body in itertools.islice(itertools.cycle(bodies), first, None):
                began = time.monotonic()
                if began >= until:
                    return
                async with session.post(url, data=body) as response:
                    await response.read()
                if counted:
                    latencies_ms.append((time.monotonic() - began) * 1000)
                    failed += response.status != 200

        async def all_of_them(seconds: float, *, counted: bool) -> None:
            until = time.monotonic() + seconds
            urls = itertools.islice(itertools.cycle(arguments.url), arguments.connections)
            async with asyncio.TaskGroup() as tasks:
                for number, url in enumerate(urls):
                    tasks.create_task(one(url, number % len(bodies), until, counted=counted))

        await all_of_them(_WARM_UP_S, counted=False)
        begin_together()
        began = time.monotonic()
        await all_of_them(arguments.seconds, counted=True)
        took = time.monotonic() - began
    return {"images_per_s": len(latencies_ms) / took, "failed": failed, "ms": latencies_ms}


if __name__ == "__main__":
    main()
