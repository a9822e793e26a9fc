"""`python -m benchmarks.bandwidth.load HOW URL IMAGE SECONDS STREAMS`: one client host's load.

HOW is `direct` (Fingerpost's client; URL is the proxy), `post` (keep-alive POSTs to URL, as to a
balancer or the relay), `redirect` (POST to the proxy, follow its 307) or `curl` (two commands for
each image: where?, then there). It says `ready`, reads from its standard input when to begin
counting (in monotonic seconds, which all processes of a machine share), and prints how many images
went by: of one that was under way at the beginning or the end of the time its share of it.
What is answered 503 is sent again.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from fingerpost.client import Client, ClientConfig

_TIMEOUT_S = 120.0
_PAUSE_S = 0.1

Send = Callable[[], Awaitable[object]]


async def _count(send: Send, start: float, end: float, streams: int) -> float:
    """Images between `start` and `end`, while so many streams send one after another.

    All go on until each has ended an image after `end`, so that the last ones are slowed by the
    others as all were.
    """
    images = 0.0
    passed: set[int] = set()

    async def stream(number: int) -> None:
        nonlocal images
        while len(passed) < streams:
            began = time.monotonic()
            await send()
            ended = time.monotonic()
            images += max(0.0, min(ended, end) - max(began, start)) / (ended - began)
            if ended >= end:
                passed.add(number)

    await asyncio.gather(*map(stream, range(streams)))
    return images


@asynccontextmanager
async def _direct(proxy: str, image: Path) -> AsyncIterator[Send]:
    data = await asyncio.to_thread(image.read_bytes)
    async with Client(proxy, config=ClientConfig(timeout_s=_TIMEOUT_S)) as client:
        yield lambda: client.classify(data, model="nothing")


@asynccontextmanager
async def _post(url: str, image: Path, *, expect: bool = False) -> AsyncIterator[Send]:
    data = await asyncio.to_thread(image.read_bytes)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def send() -> None:
            while True:
                async with session.post(url, data=data, expect100=expect) as answer:
                    await answer.read()
                if answer.status != 503:  # no worker now: its check was lost on a filled link
                    answer.raise_for_status()
                    return
                await asyncio.sleep(_PAUSE_S)

        yield send


@asynccontextmanager
async def _redirect(proxy: str, image: Path) -> AsyncIterator[Send]:
    async with _post(f"{proxy}/v1/classify/nothing", image, expect=True) as send:
        yield send


@asynccontextmanager
async def _curl(proxy: str, image: Path) -> AsyncIterator[Send]:
    line = f"curl -sfm {_TIMEOUT_S:g} -F data=@{shlex.quote(str(image))} $(curl -sf {proxy})"

    async def send() -> None:
        process = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError(f"{line}: {process.returncode}")

    yield send


_WAYS = {"direct": _direct, "post": _post, "redirect": _redirect, "curl": _curl}


async def _main(how: str, url: str, image: Path, seconds: float, streams: int) -> None:
    async with _WAYS[how](url, image) as send:
        print("ready", flush=True)
        start = float(sys.stdin.readline())
        print(await _count(send, start, start + seconds, streams))


if __name__ == "__main__":
    _, how, url, path, seconds, streams = sys.argv
    asyncio.run(_main(how, url, Path(path), float(seconds), int(streams)))
