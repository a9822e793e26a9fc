"""What the kernel knows about the bytes that it has accepted for a connection."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fingerpost.client.transport.tls_socket import TlsSocket

__all__ = ["waits_for_link"]

# Of Linux' `struct tcp_info` (linux/tcp.h, 4.10 and newer): `tcpi_unacked` in packets,
# `tcpi_notsent_bytes`, `tcpi_busy_time` and `tcpi_rwnd_limited` in microseconds.
_UNACKED: Final = struct.Struct("=24xI")
_UNSENT: Final = struct.Struct("=144xI20x2Q")


def waits_for_link(sock: socket.socket | TlsSocket) -> bool:
    """Whether bytes are on their way that the link, and not the peer, holds up.

    A peer that does not read closes its window: then the sender has waited for that for most of the
    time in which it had something to send. False where the kernel does not tell.
    """
    if sys.platform != "linux":
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNSENT.size)
    except OSError:  # closed, or no TCP
        return False
    if len(info) < _UNSENT.size:
        return False
    unacked: int = _UNACKED.unpack_from(info)[0]
    times: tuple[int, int, int] = _UNSENT.unpack(info)
    unsent_bytes, busy_us, peer_us = times
    return (unacked > 0 or unsent_bytes > 0) and 2 * peer_us <= busy_us
