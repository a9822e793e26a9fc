"""A transport that sends images to a peer."""

from __future__ import annotations

import asyncio

from tests.client.transport.peer import Conversation

from fingerpost.client import ClientConfig
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.transport.deadlines import DeadlineScheduler
from fingerpost.client.transport.reply import Reply
from fingerpost.client.transport.transport import Transport

__all__ = ["Sender", "no_answer", "pieces"]


class Sender:
    """A transport with its deadlines."""

    def __init__(self, **config: object) -> None:
        self._deadlines = DeadlineScheduler()
        self.transport = Transport(ClientConfig(**config), self._deadlines)  # type: ignore[arg-type]
        self.attempt = self.transport.attempt(b"", deadline=0.0)

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._deadlines.close()
        await self.transport.aclose()

    async def send(self, address: str, data: bytes | OneShot = b"image") -> Reply:
        self.transport.retain([address])
        deadline = asyncio.get_running_loop().time() + 30
        self.attempt = self.transport.attempt(data, deadline=deadline)
        return await self.transport.classify(address, "digits", 5, self.attempt)


async def no_answer(talk: Conversation) -> None:
    await talk.request()
    await talk.closed()


async def pieces(*several):
    for each in several:
        yield each
