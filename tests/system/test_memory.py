"""A worker's memory under thousands of requests, good and bad."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections.abc import Iterator

import aiohttp
import psutil
import pytest
from PIL import Image

from tests.support.processes import Processes
from tests.system.demo import Demo

FORMATS = {"JPEG": "RGB", "PNG": "RGBA", "WEBP": "RGB", "BMP": "RGB", "GIF": "P", "TIFF": "L"}


def pictures(demo: Demo) -> list[bytes]:
    """Digits, and drawn images of every format from a few to ninety thousand pixels."""
    rng = random.Random(1)
    images = [path.read_bytes() for path in demo.images[:20]]
    for (form, mode), side in itertools.product(FORMATS.items(), (16, 100, 300)):
        noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
        out = io.BytesIO()
        noise.convert(mode).save(out, form)
        images.append(out.getvalue())
    return images


def bodies(images: list[bytes]) -> Iterator[bytes]:
    """For ever: nine good images, then one bad, each bad one in another way."""
    rng = random.Random(2)
    while True:
        yield from rng.choices(images, k=9)
        image = rng.choice(images)
        cut, flip = rng.randrange(len(image)), rng.randrange(len(image))
        yield rng.choice(
            [
                b"",
                b"no image at all " * rng.randrange(1, 500),
                image[:cut],
                image[:flip] + bytes([image[flip] ^ 0xFF]) + image[flip + 1 :],
            ]
        )


@pytest.mark.timeout(240)
async def test_memory_does_not_grow_between_1000_and_5000_requests(
    processes: Processes, demo: Demo
) -> None:
    registry = processes.registry()
    proxy = processes.proxy(registry)
    worker = processes.worker(registry, demo.model)
    (instance,) = processes.workers(proxy, 1)
    url = f"http://{instance['address']}/"
    process = psutil.Process(worker.pid)
    source = bodies(pictures(demo))
    seen: dict[int, int] = {}

    async with aiohttp.ClientSession() as http:

        async def send(body: bytes) -> None:
            async with http.post(url, data=io.BytesIO(body)) as answer:
                await answer.read()
                seen[answer.status] = seen.get(answer.status, 0) + 1

        async def rss_after(count: int) -> int:
            """The most of a few looks: the allocator gives memory back whenever it likes."""
            highest = 0
            for done in range(0, count, 16):
                await asyncio.gather(*(send(body) for body in itertools.islice(source, 16)))
                if done >= count - 160:
                    highest = max(highest, process.memory_info().rss)
            return highest

        await rss_after(1000)
        early = await rss_after(160)
        late = await rss_after(4000)
    assert seen.keys() <= {200, 400, 413, 415, 422}
    assert sum(seen.values()) > 5_000
    assert seen[200] > 0.85 * sum(seen.values())
    assert late <= 1.05 * early, f"{early / 1e6:.1f} MB, then {late / 1e6:.1f} MB"
