"""`python -m benchmarks.bandwidth.load HOW URL IMAGE SECONDS STREAMS`: one client host's load.

HOW is `direct` (Fingerpost's client; URL is the proxy), `post` (keep-alive POSTs to URL, as to a
balancer or the relay), `curl` (look up by `GET /`, then POST, a new connection each time) or
`redirect` (POST to the proxy, follow its 307). Prints JSON: images and bytes answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from fingerpost.client import Client, ClientConfig


async def _run(send: Callable[[], Awaitable[None]], seconds: float, streams: int) -> int:
    """How many sends ended within `seconds`, counted from when the links are filled."""
    start = time.monotonic() + 2.0
    end = start + seconds
    done = 0

    async def stream() -> None:
        nonlocal done
        while time.monotonic() < end:
            await send()
            done += start <= time.monotonic() < end

    await asyncio.gather(*(stream() for _ in range(streams)))
    return done


async def main(how: str, url: str, image: bytes, seconds: float, streams: int) -> None:
    """Send, count, print."""
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    if how == "direct":
        async with Client(url, config=ClientConfig(timeout_s=120)) as client:

            async def send() -> None:
                await client.classify(image, model="nothing")

            done = await _run(send, seconds, streams)
    else:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def post(target: str, *, expect100: bool = False) -> None:
                async with session.post(target, data=image, expect100=expect100) as answer:
                    await answer.read()
                    answer.raise_for_status()

            async def send() -> None:
                if how == "post":
                    await post(url)
                elif how == "redirect":
                    await post(f"{url}/v1/classify/nothing", expect100=True)
                else:
                    async with session.get(url, headers={"Connection": "close"}) as answer:
                        address = (await answer.text()).strip()
                    await post(f"http://{address}/v1/classify/nothing")

            done = await _run(send, seconds, streams)
    print(json.dumps({"images": done, "bytes": done * len(image)}))


if __name__ == "__main__":
    _, how, url, path, seconds, streams = sys.argv
    image = Path(path).read_bytes()
    asyncio.run(main(how, url, image, float(seconds), int(streams)))
