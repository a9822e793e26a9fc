"""HTTP read byte by byte, for what a client library would not let through."""

from __future__ import annotations

import asyncio

__all__ = ["read_answer"]


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and body of a response."""
    async with asyncio.timeout(10):
        status = int((await reader.readline()).split()[1])
        headers = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, await reader.readexactly(int(headers.get("content-length", 0)))
