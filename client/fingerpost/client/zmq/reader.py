"""Reads a ZeroMQ socket in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SocketReader"]

# Frames that are read before other work of the loop has its turn.
_AT_ONCE: Final = 256


class SocketReader:
    """Passes on the messages of a socket as they come. Make it inside a running event loop.

    ZeroMQ's descriptor tells of changes, not of messages that are there, so all of them are read
    at each change, and once more after each `send`, which may have taken notice of a change.
    Rejected: `zmq.asyncio`, which makes a future and a callback for each call.

    A message is read frame by frame: one of very many frames is never in memory as a whole here.

    Args:
        socket: of ZeroMQ.
        deliver: called with the frames of a message; of one of more than `max_frames` with one
            more than these.
        max_frames: most frames of a valid message.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        deliver: Callable[[list[zmq.Frame]], object],
        *,
        max_frames: int,
    ) -> None:
        self._socket = socket
        self._deliver = deliver
        self._max_frames = max_frames
        self._frames: list[zmq.Frame] = []
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._scheduled = False
        self._closed = False
        self._loop.add_reader(self._descriptor, self.read)
        self._schedule()

    def close(self) -> None:
        """Read no more; the socket itself stays open."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)

    def send(self, frames: list[bytes | memoryview]) -> None:
        """Send a message, or raise `zmq.ZMQError`, of which `zmq.Again` is one, at once."""
        self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        self._schedule()

    def read(self) -> None:
        """Pass on what has arrived."""
        self._scheduled = False
        for _ in range(_AT_ONCE):
            if self._closed:
                return
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if len(self._frames) <= self._max_frames:
                self._frames.append(frame)
            if not frame.more:
                frames, self._frames = self._frames, []
                self._deliver(frames)
        self._schedule()

    def waiting(self) -> bool:
        """Whether there is something to read; asking takes notice of changes, as `send` does."""
        with contextlib.suppress(zmq.ZMQError):
            if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._schedule()
                return True
        return False

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.read)
