"""The sockets of this process, as the system sees them."""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from pathlib import Path

from tests.support.waiting import until

__all__ = ["KEPT", "close_server", "open_sockets", "received"]

KEPT: set[int] = set()
"""Descriptors of sockets that the tests keep from one to the next; no test's own."""


async def close_server(server: asyncio.Server) -> None:
    """Close a server, but not between the two steps in which asyncio accepts a connection.

    That would leave a socket open (https://github.com/python/cpython/issues/109564).
    """
    for each in server.sockets:
        asyncio.get_running_loop().remove_reader(each.fileno())
    await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)  # so that what was accepted has its handler


def open_sockets() -> int:
    """How many sockets this process holds, without `KEPT`; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    count = 0
    for each in folder.iterdir() if folder.exists() else ():
        if int(each.name) in KEPT:
            continue
        try:
            count += each.readlink().name.startswith("socket:")
        except FileNotFoundError:
            continue
    return count


async def received(writer: asyncio.StreamWriter) -> None:
    """Wait until a server in this event loop was given all that was written."""
    connection = writer.get_extra_info("socket")
    on_the_way = array.array("i", [0])

    def arrived() -> bool:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, on_the_way)
        return not on_the_way[0] and not writer.transport.get_write_buffer_size()

    await until(arrived)
    for _ in range(3):  # what has arrived is delivered in the next turn of the loop
        await asyncio.sleep(0)
