"""The connections behind a ROUTER: how many, how long idle, and how much each has sent.

ZeroMQ shows no connections to a program: a ROUTER cannot close one, and it collects the frames of
a message without a limit until the last one has come. So this follows the events of the socket,
which name the descriptor of each connection. A descriptor of its own for the same connection lets
it ask the kernel how much has arrived, and shut the connection down; ZeroMQ then clears it away.
Rejected: a port of our own in front of ZeroMQ, which costs a copy of each image; and no limit at
all without CURVE, for whoever reaches the port could then fill the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from fingerpost.client.zmq.reader import SocketReader
from fingerpost.security.grant import NO_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.registry.http.guard import ConnectionGuard
    from fingerpost.worker.serving.memory import BodyMemory

__all__ = ["Connection", "Connections"]

_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_LOOK_S: Final = 0.1
# `tcpi_bytes_received` of Linux's `struct tcp_info`, since 4.1.
_RECEIVED: Final = struct.Struct("128xQ")
_TCP_INFO: Final = 11
# Of a frame: its flags and length, and with CURVE a nonce and a code of authentication.
_FRAMING_BYTES: Final = 48


class Connection:
    """One connection to the worker's port.

    Attributes:
        address: of the client.
        spoke: whether a whole message has come.
        busy: whether it has an open stream.
        active_at: when it came, or its stream ended, by the loop's clock.
        dropped: whether it was shut down by the worker.
    """

    __slots__ = ("_counted", "_socket", "active_at", "address", "busy", "dropped", "spoke")

    def __init__(self, sock: socket.socket, address: str, now: float) -> None:
        self._socket = sock
        self.address = address
        self._counted = 0
        self.spoke = False
        self.busy = False
        self.active_at = now
        self.dropped = False

    def drop(self) -> None:
        """Shut it down."""
        self.dropped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def count(self, frames: Sequence[zmq.Frame]) -> None:
        """Count a whole message that has come."""
        self.spoke = True
        self._counted += sum([len(frame) + _FRAMING_BYTES for frame in frames])

    def unfinished(self) -> int:
        """Bytes that have arrived of messages that have not come whole, or were not read yet."""
        received = self._received()
        self._counted = min(self._counted, received)  # the framing is counted as its most
        return received - self._counted

    def _received(self) -> int:
        """Bytes that the kernel has received; 0 where it does not say."""
        if not sys.platform.startswith("linux"):
            return 0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED.size)
        except OSError:
            return 0
        found: int = _RECEIVED.unpack(info)[0] if len(info) == _RECEIVED.size else 0
        return found

    def close(self) -> None:
        """Give up the descriptor."""
        self._socket.close()


class Connections:
    """Follows the connections of a listening socket of ZeroMQ. Make it inside a running loop.

    Args:
        listener: the socket, before it listens.
        guard: limits how many there are.
        memory: counts the bytes of messages that have not come whole.
        max_message_bytes: most bytes of a message; twice as many may wait for its end.
        max_waiting: how many whole messages of one connection wait at most.
        ended: called with the descriptor of a connection that is gone.
        waiting: whether whole messages may still wait to be read.
        dropped: counts connections that are shut down for what they hold, by the reason.
    """

    def __init__(
        self,
        listener: zmq.Socket[bytes],
        guard: ConnectionGuard,
        memory: BodyMemory,
        *,
        max_message_bytes: int,
        max_waiting: int,
        ended: Callable[[int], object],
        waiting: Callable[[], bool],
        dropped: Callable[[str], object],
    ) -> None:
        self._listener = listener
        self._guard = guard
        self._memory = memory
        self._unfinished = 0
        self._most_bytes = 2 * max_message_bytes
        self._most_waiting_bytes = (max_waiting + 2) * max_message_bytes
        self._ended = ended
        self._waiting = waiting
        self._dropped = dropped
        self._open: dict[int, Connection] = {}
        self._monitor = listener.get_monitor_socket(_EVENTS)
        self._loop = asyncio.get_running_loop()
        self._reader = SocketReader(self._monitor, self._event, max_frames=2)
        self._watch = asyncio.create_task(self._look(), name="ZeroMQ connections")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def of(self, descriptor: int) -> Connection | None:
        """The connection with this descriptor of ZeroMQ's."""
        return self._open.get(descriptor)

    def update(self) -> None:
        """Take note of what has happened until now."""
        self._reader.read()

    def _event(self, frames: list[zmq.Frame]) -> None:
        event = parse_monitor_message([frame.bytes for frame in frames])
        descriptor = int(event["value"])
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._accepted(descriptor)
        else:
            self._gone(descriptor)

    def _accepted(self, descriptor: int) -> None:
        self._gone(descriptor)
        try:
            sock = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # it is gone already
            return
        try:
            address = str(sock.getpeername()[0])
        except OSError:
            sock.close()
            return
        connection = Connection(sock, address, self._loop.time())
        if self._guard.enter(address):
            self._open[descriptor] = connection
        else:
            connection.drop()
            connection.close()

    def _gone(self, descriptor: int) -> None:
        connection = self._open.pop(descriptor, None)
        if connection is not None:
            connection.close()
            self._guard.leave(connection.address)
            self._ended(descriptor)

    async def _look(self) -> None:
        """Shut connections down that hold too much, or do nothing."""
        config = self._guard.config
        while True:
            await asyncio.sleep(_LOOK_S)
            now, waiting = self._loop.time(), self._waiting()
            most = self._most_waiting_bytes if waiting else self._most_bytes
            total, largest, held = 0, 0, None
            for connection in tuple(self._open.values()):
                unfinished = connection.unfinished()
                total += unfinished
                if unfinished > largest:
                    largest, held = unfinished, connection
                idle_s = config.idle_timeout_s if connection.spoke else config.headers_timeout_s
                if unfinished > most:
                    connection.drop()
                    self._dropped("unfinished")
                elif not connection.busy and now - connection.active_at > idle_s:
                    connection.drop()
            self._memory.hold(NO_LIMITS, total - self._unfinished)
            self._unfinished = total
            if held is not None and self._memory.used > self._memory.most and not held.dropped:
                held.drop()
                self._dropped("memory")

    async def aclose(self) -> None:
        """Follow them no longer."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        self._memory.hold(NO_LIMITS, -self._unfinished)
        self._reader.close()
        self._listener.disable_monitor()
        self._monitor.close(0)
        for descriptor in tuple(self._open):
            self._gone(descriptor)
