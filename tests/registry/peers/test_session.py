"""What is said of a connection that fails, in the system's words."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from tests.support.ports import free_port

from fingerpost.errors import BadAnswer, ConnectionRefused, PeerError, Unreachable
from fingerpost.registry.peers.session import PeerSession, connection_problem, peer_error


async def failure(url: str) -> PeerError:
    async with PeerSession(max_bytes=100, workers=False) as session:
        with pytest.raises((aiohttp.ClientError, OSError)) as caught:
            async with session.request("GET", url):
                pass
    return peer_error(caught.value, "peer")


async def test_nobody_listens() -> None:
    error = await failure(f"http://127.0.0.1:{free_port()}/")
    assert (type(error), str(error)) == (ConnectionRefused, "peer: Connection refused")


async def test_nobody_listens_at_any_address_of_a_name() -> None:
    error = await failure(f"http://localhost:{free_port()}/")
    assert (type(error), str(error)) == (ConnectionRefused, "peer: Connection refused")


async def test_an_unknown_name() -> None:
    error = await failure("http://no-such-host.invalid:80/")
    assert type(error) is Unreachable
    assert "ssl" not in str(error)
    assert "no-such-host" not in str(error)


async def test_what_is_not_http() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    error = await failure(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    assert type(error) is BadAnswer
    assert str(error).startswith("peer: not an HTTP answer: Bad status line: ")
    assert "url=" not in str(error)


def test_other_errors_keep_their_words() -> None:
    assert connection_problem(ValueError("no colour")) == "no colour"
    assert connection_problem(TimeoutError()) == "TimeoutError"
    assert connection_problem(socket.gaierror(-2, "Name unknown")) == "Name unknown"
    both = "Multiple exceptions: [Errno 111] refused, [Errno 101] no network"
    assert connection_problem(OSError(both)) == "Connection refused and Network is unreachable"
