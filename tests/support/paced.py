"""A socket whose link is slow, by the kernel's own pacing: it needs no root and no network."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["paced_socket"]

_SO_MAX_PACING_RATE: Final = 47  # Linux; Python has no name for it


def paced_socket(bytes_per_s: int, *kind: int) -> socket.socket:
    """Make a socket, not connected yet; `kind` as for `socket.socket`.

    With the packets of a real network: the first ten are not paced, and those of the loopback
    device have 64 KB.
    """
    made = socket.socket(*kind)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    made.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, bytes_per_s)
    return made
