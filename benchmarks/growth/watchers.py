"""`python -m benchmarks.growth.watchers URL COUNT`: so many clients that hold a question open.

Each has a socket of its own and asks again as soon as it is told of a change. Prints `watching`
when all of them wait, and again whenever all have been told and wait once more.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from urllib.parse import urlsplit

from benchmarks.growth.fleet import SERVICE

_WAIT = "20s"  # as the library's clients
_AT_ONCE = 200


async def watch(host: str, port: int, count: int, index: int) -> None:
    """Until a connection breaks."""
    opening = asyncio.Semaphore(_AT_ONCE)
    waiting: Counter[int] = Counter()

    async def one() -> None:
        at = index
        async with opening:
            reader, writer = await asyncio.open_connection(host, port)
        while True:
            asked = at
            waiting[at] += 1
            if waiting[at] == count:
                print("watching", flush=True)
            while at == asked:
                writer.write(
                    f"GET /v1/resolve/{SERVICE}?index={at}&wait={_WAIT} HTTP/1.1\r\n"
                    f"Host: {host}\r\n\r\n".encode()
                )
                at = await answered(reader)

    await asyncio.gather(*(one() for _ in range(count)))


async def answered(reader: asyncio.StreamReader) -> int:
    """Read one whole answer; its index."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, *lines = head.splitlines()
    fields = dict(line.split(": ", 1) for line in lines if line)
    left = int(fields["content-length"])
    while left:
        left -= len(await reader.read(min(left, 65_536)))
    if " 200 " not in status:
        raise RuntimeError(status)
    return int(fields["fingerpost-index"])


async def main(url: str, count: int) -> None:
    """Ask once for the index, then hold."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(f"GET /v1/resolve/{SERVICE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    index = await answered(reader)
    writer.close()
    await watch(place.hostname, place.port, count, index)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
