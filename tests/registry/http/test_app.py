"""What Fingerpost's HTTP servers share."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web

from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.app import bind, serve

pytestmark = pytest.mark.shell


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_leaves_no_connection_open(turns: int):
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await runner.setup()
    listener = bind("127.0.0.1", 0)
    await serve(runner, listener)
    with socket.create_connection(listener.getsockname()) as connection:
        connection.settimeout(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cleanup()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(connection.recv, 1) == b""


def test_a_port_that_is_in_use():
    with (
        bind("127.0.0.1", 0) as listener,
        pytest.raises(
            ConfigurationError, match=r"in use; give another port \(--port\), or 0 for a free"
        ),
    ):
        listener.listen()
        bind("127.0.0.1", listener.getsockname()[1])


def test_an_address_of_another_machine():
    with pytest.raises(ConfigurationError, match="give an address of this machine as host"):
        bind("192.0.2.1", 0)
