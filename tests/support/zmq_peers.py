"""Clients of a worker's ZeroMQ port: one of pyzmq, and one of bare bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Self

import zmq
import zmq.asyncio

__all__ = ["Dealer", "connected", "greeted"]

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_READY = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"


class Dealer:
    """A client with a DEALER, as a program without Fingerpost has it."""

    def __init__(self, context: zmq.asyncio.Context, port: int, **options: Any) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    async def send(self, *frames: bytes) -> None:
        await self.socket.send_multipart(list(frames))

    async def order(self, type_: str, key: bytes = b"", **members: Any) -> None:
        await self.send(key, json.dumps({"type": type_, **members}).encode())

    async def take(self, timeout_s: float = 10) -> tuple[bytes, dict[str, Any], str]:
        """Key, head, and load report of the next message; an order has no load report."""
        key, head, *load = await asyncio.wait_for(self.socket.recv_multipart(), timeout_s)
        return key, json.loads(head), load[0].decode() if load else ""

    async def open(self, model: str = "colours", **members: Any) -> dict[str, Any]:
        await self.order("open", model=model, **members)
        return (await self.take())[1]

    async def ask(self, image: bytes, key: bytes = b"key", **head: Any) -> dict[str, Any]:
        await self.send(key, json.dumps(head).encode(), image)
        found, answer, _ = await self.take()
        assert found == key
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()


@contextlib.asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Dealer]:
    """A `Dealer` with a context of its own."""
    context = zmq.asyncio.Context()
    try:
        async with Dealer(context, port, **options) as dealer:
            yield dealer
    finally:
        context.destroy(linger=0)


@contextlib.asynccontextmanager
async def greeted(port: int) -> AsyncIterator[socket.socket]:
    """A connection that has shaken hands by ZMTP, without ZeroMQ behind it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, _GREETING + bytes([4, len(_READY)]) + _READY)
        received = b""
        while b"READY" not in received:
            received += await asyncio.wait_for(loop.sock_recv(sock, 4096), 10)
        yield sock
