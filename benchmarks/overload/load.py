"""`python -m benchmarks.overload.load WORKERS IMAGE RATE TIMEOUT START SECONDS`: one host's images.

They come at random times, RATE a second, whether the earlier ones were answered or not, and have
TIMEOUT seconds each. Those are counted that come within SECONDS of START, in monotonic seconds,
which all processes of a machine share; others come until the last of them is over. Prints JSON:
for each one that counts the seconds to its answer, or null if there was none.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from fingerpost.client import Client, ClientConfig
from fingerpost.errors import FingerpostError


async def _main(
    workers: str, image: bytes, rate: float, timeout_s: float, start: float, seconds: float
) -> list[float | None]:
    loop = asyncio.get_running_loop()
    rng = random.Random()
    took: list[float | None] = []

    async def send(client: Client, due: float) -> None:
        elapsed_s: float | None = None
        try:
            await client.classify(image, "sleeper", top=1)
            elapsed_s = loop.time() - due
        except FingerpostError:
            pass
        if start <= due < start + seconds:
            took.append(elapsed_s)

    config = ClientConfig(timeout_s=timeout_s)
    async with (
        Client(registry=f"static://{workers}", config=config) as client,
        asyncio.TaskGroup() as group,
    ):
        due = loop.time()
        while (due := due + rng.expovariate(rate)) < start + seconds + timeout_s:
            await asyncio.sleep(due - loop.time())
            group.create_task(send(client, due))
    return took


if __name__ == "__main__":
    _, workers, path, *figures = sys.argv
    print(json.dumps(asyncio.run(_main(workers, Path(path).read_bytes(), *map(float, figures)))))
