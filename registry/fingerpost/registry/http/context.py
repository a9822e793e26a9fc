"""What all connections of one HTTP server share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.registry.http.guard import ConnectionGuard
    from fingerpost.registry.http.request import PlainRequest

__all__ = ["KnownPaths", "PlainHandler", "ServerContext"]

# Answers with the bytes of a whole response to a request that keeps its connection, or a response.
PlainHandler = Callable[["PlainRequest"], Awaitable["bytes | web.Response"]]

# Finds the handler of a request on a known path, or the whole answer to one without a body that
# keeps its connection. None leaves it to the application. A handler is right for all requests of
# the connection with the same head, whatever its `numbers`; an answer is asked for each time.
KnownPaths = Callable[["PlainRequest"], PlainHandler | bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """What all connections of one HTTP server share.

    Attributes:
        guard: counts the connections, and has their limits.
        make_request: makes aiohttp's requests.
        handler: answers them.
        known: finds the paths that go past the application.
        numbers: names of fields, in small letters, in which a head may have other digits than one
            before it and still be the same: see `RepeatedHead`.
        cancels: whether a client that goes away cancels its request.
        read_bytes: of a body, that wait for its handler before the client is paused.
    """

    guard: ConnectionGuard
    make_request: Callable[..., web.Request]
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    known: KnownPaths | None
    numbers: frozenset[str]
    cancels: bool
    read_bytes: int
