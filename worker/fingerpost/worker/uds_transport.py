"""The Unix socket of a worker, for clients on its host."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fingerpost.registry.http.app import serve
from fingerpost.registry.http.unix_listener import UnixListener
from fingerpost.registry.same_host import FRAMES_SUFFIX, socket_meta

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from fingerpost.security.tls import ServerTls
    from fingerpost.worker.serving.frames import Frames

__all__ = ["unix_socket"]


@asynccontextmanager
async def unix_socket(
    runner: web.AppRunner, frames: Frames, path: str | None, tls: ServerTls | None
) -> AsyncIterator[dict[str, str]]:
    """Listen on a Unix socket too, inside the `async with` block; return what is registered.

    Nothing where the settings name none.

    Args:
        runner: of the worker's HTTP application, set up; its cleanup ends the connections.
        frames: takes decoded frames, at a socket beside it.
        path: of the socket.
        tls: as on the port.

    Raises:
        ConfigurationError: see `UnixListener`.
    """
    if path is None:
        yield {}
        return
    async with AsyncExitStack() as stack:
        listener = UnixListener(path, "--uds")
        stack.callback(listener.close)
        site = await serve(runner, listener.socket, tls)
        stack.push_async_callback(site.stop)
        beside = UnixListener(path, "--uds", socket.SOCK_SEQPACKET, FRAMES_SUFFIX)
        stack.callback(beside.close)
        frames.listen(beside.socket)
        stack.callback(frames.close)
        beside.publish()
        listener.publish()
        yield socket_meta(path, listener.file, beside.file)
