"""The worker's HTTP server: connections whose headers take too long are closed, others are kept."""

from __future__ import annotations

import asyncio
import contextlib

from fingerpost.registry.http.connection_config import ConnectionConfig
from tests.support.colours import encoded
from tests.support.http import is_closed, post_request, raw_connection, read_answer
from tests.support.rig import serving

IMAGE = encoded("red")
CLASSIFY = "/v1/classify/colours"


async def test_connections_without_all_their_headers_are_closed() -> None:
    async with (
        serving(connections=ConnectionConfig(headers_timeout_s=0.2)) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        silent, slow, again = [
            await stack.enter_async_context(raw_connection(rig.port)) for _ in range(3)
        ]
        again[1].write(post_request(CLASSIFY, IMAGE))
        assert (await read_answer(again[0]))[0] == 200
        again[1].write(b"POST / HTTP/1.1\r\nHo")
        dripping = asyncio.create_task(_drip(slow[1]))
        for reader, _ in (silent, slow, again):
            assert await is_closed(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_idle_connections_and_long_uploads_are_kept() -> None:
    async with (
        serving(connections=ConnectionConfig(headers_timeout_s=0.2)) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        idle, upload = [await stack.enter_async_context(raw_connection(rig.port)) for _ in range(2)]
        silent = await stack.enter_async_context(raw_connection(rig.port))
        idle[1].write(post_request(CLASSIFY, IMAGE))
        assert (await read_answer(idle[0]))[0] == 200
        whole = post_request(CLASSIFY, IMAGE)
        cut = len(whole) - len(IMAGE)
        upload[1].write(whole[: cut + 10])
        for _ in range(2):  # as long as a silent one lives, twice
            assert await is_closed(silent[0])
            silent = await stack.enter_async_context(raw_connection(rig.port))
        upload[1].write(whole[cut + 10 :])
        idle[1].write(post_request(CLASSIFY, IMAGE))
        for reader, _ in (upload, idle):
            assert (await read_answer(reader))[0] == 200


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Headers without end, a byte at a time."""
    writer.write(b"POST / HTTP/1.1\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)
