"""Decoded frames in shared memory: the client's pixels are used where they are.

A client on this host sends the descriptor of a sealed memfd to a Unix socket of its own, as a
message of a token and one descriptor (`SCM_RIGHTS`), and then a request whose header
`Fingerpost-Frame` has the same token in place of a body. So frames have the routes, limits, leases
and errors of every other request; aiohttp, which cannot receive descriptors, has no part in it.
The socket keeps messages apart (`SOCK_SEQPACKET`), so that there is nothing to frame. The message
is sent first: when the request is read, it is in the socket at least.

The seal against shrinking is what makes a mapping safe: a page that a client took away would end
the process (SIGBUS). What the client writes into the frame meanwhile changes its own result alone.

Rejected: a second protocol with requests and answers at that socket, for which admission,
deadlines, leases, metrics and errors would be done again; a seal against the client's own writing,
for which it needs new memory for each frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fingerpost.client.wire import FRAME_HEADER
from fingerpost.errors import ImageTooLarge, InvalidFrame, InvalidRequest
from fingerpost.registry.http.unix_listener import client_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.registry.http.request import Request
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.serving.memory import BodyMemory, Held

__all__ = ["Frames"]

TOKEN_BYTES: Final = 16
_HEADER: Final = re.compile(
    r"([0-9a-f]{16}) UINT8 ([0-9]{1,6})x([0-9]{1,6})x([13])", re.ASCII | re.IGNORECASE
)
# Of Linux; Python has no names for them elsewhere, where there is no socket for frames.
_F_GET_SEALS: Final = 1034
_F_SEAL_SHRINK: Final = 2
_MAX_CONNECTIONS: Final = 256
# Of one connection. The request follows at once, so that a client has few that nobody asked for.
_MAX_WAITING: Final = 32
_BACKLOG: Final = 128
# No descriptor is left; how long nobody is accepted then.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_S: Final = 1.0
_DESCRIPTORS: Final = struct.Struct("2i")  # one more than a message may have


class _Shape(NamedTuple):
    height: int
    width: int
    channels: int


class Frames:
    """Receives the memory of frames, and maps it for the requests that ask for it.

    Make it inside a running event loop.

    Args:
        images: the limits of pixels.
        memory: counts the bytes of mapped frames, as those of bodies.
        max_bytes: of a frame.
    """

    def __init__(self, images: ImageConfig, memory: BodyMemory, *, max_bytes: int) -> None:
        self._images = images
        self._memory = memory
        self._max_bytes = max_bytes
        self._listener: socket.socket | None = None
        self._senders: dict[int, _Sender] = {}

    def listen(self, listener: socket.socket) -> None:
        """Take frames from a bound socket, until `close`."""
        listener.settimeout(0)
        listener.listen(_BACKLOG)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Close all connections, and the memory that no request has asked for."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for number in list(self._senders):
            self._drop(number)

    def take(self, request: Request, held: Held) -> NDArray[np.uint8]:
        """The frame that a request's header names, `[height, width, channels]`.

        It is mapped; what a model writes into it, the client does not see. It is unmapped with the
        last reference to it.

        Raises:
            InvalidRequest: the header is not valid, or there is a body too.
            ImageTooLarge: more pixels or bytes than the limits.
            Overloaded: no memory for it.
            InvalidFrame: there is no memory with that token, of that user; or it is not sealed, not
                a memfd, or of another size.
        """
        token, shape = _parse(request.headers[FRAME_HEADER])
        if request.content_length != 0:
            raise InvalidRequest(f"a request with {FRAME_HEADER} has no body: Content-Length is 0")
        descriptor = self._find(token, request.remote or "")
        try:
            size = self._check(descriptor, shape, held)
            self._memory.take(held, size)
            # The mapping has the memory; the array has the mapping.
            mapped = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE)
        except OSError as error:  # opened for writing alone, for example
            raise InvalidFrame(f"the frame cannot be mapped: {error.strerror}") from error
        finally:
            os.close(descriptor)
        return np.frombuffer(mapped, np.uint8).reshape(shape)

    def _check(self, descriptor: int, shape: _Shape, held: Held) -> int:
        """The bytes of a frame, which the memory has exactly."""
        size = shape.height * shape.width * shape.channels
        config, most = self._images, held.grant.max_body_bytes
        most = self._max_bytes if most is None else min(most, self._max_bytes)
        if shape.height * shape.width > config.max_pixels or max(shape) > config.max_side:
            raise ImageTooLarge(
                f"the frame is {shape.width} x {shape.height}, over the limit of "
                f"{config.max_pixels / 1e6:.0f} megapixels or {config.max_side} a side"
            )
        if size > most:
            raise ImageTooLarge(f"the frame has {size:,} bytes, over the limit of {most:,}")
        import fcntl  # which Windows does not have

        try:
            seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
        except OSError as error:
            raise InvalidFrame(
                "the frame is not in a memfd: make it with memfd_create(MFD_ALLOW_SEALING)"
            ) from error
        if not seals & _F_SEAL_SHRINK:
            raise InvalidFrame(
                "the frame's memfd may shrink: seal it with F_SEAL_SHRINK before it is sent"
            )
        found = os.fstat(descriptor).st_size
        if found != size or not size:
            raise InvalidFrame(
                f"the frame's memfd has {found:,} bytes, but UINT8 {list(shape)} has {size:,}"
            )
        return size

    def _find(self, token: bytes, client: str) -> int:
        """The descriptor that came with a token, which is the caller's from now on."""
        for again in (False, True):
            if again:  # the request was read first
                self._accept()
                for sender in list(self._senders.values()):
                    self._receive(sender)
            for sender in self._senders.values():
                if sender.client == client and token in sender.waiting:
                    return sender.waiting.pop(token)
        raise InvalidFrame(
            f"no frame {token.decode()} came to the socket for frames: send its memfd there first, "
            "and then the request to the Unix socket beside it, as the same user"
        )

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                opened, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:  # else this would be called again and again
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(self._listener.fileno())
                    loop.call_later(_EXHAUSTED_S, self._go_on)
                return
            opened.settimeout(0)
            sender = _Sender(opened)
            if len(self._senders) >= _MAX_CONNECTIONS or not sender.client:
                sender.close()
                continue
            self._senders[opened.fileno()] = sender
            asyncio.get_running_loop().add_reader(opened.fileno(), self._receive, sender)

    def _go_on(self) -> None:
        if self._listener is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._listener.fileno(), self._accept)

    def _receive(self, sender: _Sender) -> None:
        try:
            for _ in range(_MAX_WAITING):
                if not sender.receive():
                    return
        except (OSError, ValueError):  # it has left, or what it sends is not a frame
            self._drop(sender.number)

    def _drop(self, number: int) -> None:
        sender = self._senders.pop(number, None)
        if sender is not None:
            asyncio.get_running_loop().remove_reader(number)
            sender.close()


class _Sender:
    """The connection of a client, and the descriptors that came by it and nobody has asked for."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.number = opened.fileno()
        self.client = client_name(_Facts(opened))
        self.waiting: dict[bytes, int] = {}

    def receive(self) -> bool:
        """Take one message; False if there is none now.

        Raises:
            OSError: the connection has ended.
            ValueError: the message is not a token and one descriptor.
        """
        try:
            token, ancillary, flags, _ = self._socket.recvmsg(
                TOKEN_BYTES + 1, socket.CMSG_LEN(_DESCRIPTORS.size), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        found: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found += (number for (number,) in struct.iter_unpack("i", data))
        if not token and not found:
            raise ConnectionResetError
        valid = len(token) == TOKEN_BYTES and len(found) == 1
        if not valid or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or token in self.waiting:
            for each in found:
                os.close(each)
            raise ValueError("not a token and one descriptor")
        if len(self.waiting) >= _MAX_WAITING:
            os.close(self.waiting.pop(next(iter(self.waiting))))
        self.waiting[token] = found[0]
        return True

    def close(self) -> None:
        """Close the connection and the descriptors."""
        self._socket.close()
        for each in self.waiting.values():
            with contextlib.suppress(OSError):
                os.close(each)
        self.waiting.clear()


class _Facts(NamedTuple):
    """What `client_name` asks of a connection."""

    sock: socket.socket

    def get_extra_info(self, name: str) -> object:
        """The socket, and nothing else."""
        return self.sock if name == "socket" else None


def _parse(text: str) -> tuple[bytes, _Shape]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"{FRAME_HEADER}: {text[:100]!r} is not a valid frame: write a token of 16 hexadecimal "
            "digits, UINT8, and HEIGHTxWIDTHx3, or x1 for gray"
        )
    token, *sides = match.groups()
    return token.lower().encode(), _Shape(*map(int, sides))
