"""One HTTP/1.1 connection to a worker: one image up, one answer down, and the next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.routing import Phase
from fingerpost.client.transport.answer import AnswerReader
from fingerpost.errors import BadAnswer, ImageError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.transport.answer import Answer
    from fingerpost.client.transport.upload import Upload
    from fingerpost.errors import FingerpostError

__all__ = ["Connection"]

_READ_BYTES: Final = 1 << 14  # an answer has some hundred
# A connection that was idle for less, and ends without an answer, is a worker that died.
_STALE_S: Final = 1.0
_RESET: Final = struct.pack("ii", 1, 0)  # linger, for 0 s


class Connection:
    """A connected socket that carries one exchange at a time. Make it inside a running loop.

    The socket is read and written by the event loop's own callbacks, without a transport: the head
    and the image go to the kernel in one call, and are copied nowhere else; what the kernel has
    taken is exactly what counts as sent; and `close` has closed when it returns. It needs an event
    loop with `add_reader`: asyncio's own, except Windows' proactor, or uvloop.

    ::

        IDLE --exchange--> SENDING --all taken--> WAITING --answer--> IDLE
        SENDING --answer: the worker has heard enough--> CLOSED, with the answer
        any --end, reset, nonsense, `give_up`, cancellation--> CLOSED

    In the middle of an exchange `close` resets the connection: the kernel would go on sending what
    it holds of an image that nobody waits for.

    Args:
        sock: connected, non-blocking; it belongs to the connection from now on.
        peer: names the worker in errors.

    Attributes:
        closed: nothing can be asked on it any more.
        stale: the last exchange found that the worker had closed it before: it was idle for a
            while, and ended without one byte of an answer. The worker has done nothing, most
            probably, and another connection may well succeed.
        idle_since: when the last exchange ended, in the loop's seconds; infinite before the first.
    """

    __slots__ = (
        "_drained",
        "_framing_bytes",
        "_loop",
        "_peer",
        "_reader",
        "_sending",
        "_socket",
        "_unfinished",
        "_unsent",
        "_upload",
        "_waiting",
        "_was_idle",
        "_writing",
        "closed",
        "idle_since",
        "stale",
    )

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._peer = peer
        self._reader = AnswerReader(peer)
        self._waiting: asyncio.Future[Answer] | None = None
        self._upload: Upload | None = None
        self._unfinished = False
        self._sending = False  # something of the request is still to be handed to the kernel
        self._unsent: Sequence[bytes | memoryview] = ()
        self._framing_bytes = 0  # of what is unsent, and no part of the image
        self._writing = False
        self._drained: asyncio.Future[None] | None = None
        self._was_idle = False
        self.closed = False
        self.stale = False
        self.idle_since = inf
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def sent(self) -> bool:
        """Whether an image has been sent, and its answer is waited for."""
        return self._upload is not None and self._upload.sent_at is not None

    async def exchange(self, head: bytes, upload: Upload | None = None) -> Answer:
        """Send a request and wait for its answer.

        Args:
            head: request line and header fields, which fit what follows: the image as it is, or in
                chunks where it is a `OneShot`.
            upload: the image.

        Raises:
            Unreachable: the connection broke, was closed, or `give_up` was called.
            BadAnswer: what came is no HTTP/1.1, or was cut off.
            ImageError: the source of a one-shot image failed.
        """
        self._was_idle = self._loop.time() - self.idle_since >= _STALE_S
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting = waiting
        self._upload = upload
        self._reader.probing = upload is None
        self._sending = self._unfinished = True
        self.stale = False
        pump: asyncio.Task[None] | None = None
        try:
            if upload is None:
                self._send((head,), len(head))
            elif isinstance(upload.data, OneShot):
                upload.begin()
                pump = asyncio.create_task(self._pump(head, upload.data))
            else:
                upload.begin()
                self._send((head, upload.data), len(head))
            answer = await waiting
            self._unfinished = self._sending
            if self._unfinished or not self._reader.keep:
                self.close()
        except BaseException:
            self.close()
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # is known, even where a cancellation came first
            raise
        finally:
            self._waiting = self._upload = self._drained = None
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
        self.idle_since = self._loop.time()
        return answer

    def check(self, now: float) -> None:
        """See `Sweep`; at the deadline it is the request that ends, and not this attempt."""
        if self._upload is None:
            return
        clock = self._upload.clock
        if now < clock.expires_at() or now >= clock.deadline:
            return
        if clock.phase is Phase.UPLOAD:
            self.give_up(f"the upload stood still for {clock.progress_s:g} s (progress_s)")
        else:
            self.give_up(f"silent for {clock.compute_s:g} s (silence_s)")

    def give_up(self, reason: str) -> None:
        """End the exchange under way."""
        self._fail(Unreachable(f"{self._peer}: {reason}"))

    def close(self) -> None:
        """Close it, at once; an exchange under way fails."""
        if self.closed:
            return
        self.closed = True
        self._stop_writing()
        self._loop.remove_reader(self._socket.fileno())
        if self._unfinished:
            with contextlib.suppress(OSError):  # where the other side was quicker
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
        self.give_up("the connection was closed")

    def _fail(self, error: FingerpostError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    # Reading.

    def _readable(self) -> None:
        waiting = self._waiting
        broken: OSError | None = None
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            data, broken = b"", error
        if waiting is None or waiting.done():  # the end, or what nobody asked for
            self.close()
            return
        try:
            answer = self._reader.feed(data) if data else self._end(broken)
        except (BadAnswer, Unreachable) as error:
            self._fail(error)
            return
        if answer is not None:
            waiting.set_result(answer)
        elif self._upload is not None:
            self._upload.clock.progressed(self._loop.time())

    def _end(self, broken: OSError | None) -> Answer:
        """What the end of the connection means for the exchange."""
        if not self._reader.begun:
            self.stale = self._was_idle
            raise Unreachable(f"{self._peer}: {broken or 'closed without an answer'}")
        if broken is not None:
            raise BadAnswer(f"{self._peer}: in the middle of an answer: {broken}") from broken
        return self._reader.end()

    # Writing.

    def _send(self, pieces: Sequence[bytes | memoryview], framing_bytes: int) -> None:
        self._unsent = pieces
        self._framing_bytes = framing_bytes
        self._write()

    def _write(self) -> None:
        """Hand over what the kernel takes; called again when it takes more."""
        try:
            taken = self._socket.sendmsg(self._unsent)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except ConnectionError:
            # The worker may have said why, before it closed: reading tells.
            self._stop_writing()
            return
        except OSError as error:
            self._stop_writing()
            self._fail(Unreachable(f"{self._peer}: {error}"))
            return
        if taken and self._upload is not None:
            framing_bytes = min(taken, self._framing_bytes)
            self._framing_bytes -= framing_bytes
            self._upload.wrote(taken - framing_bytes)
        if taken < sum(map(len, self._unsent)):
            self._unsent = _after(self._unsent, taken)
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._write)
            return
        self._unsent = ()
        self._stop_writing()
        if self._drained is None:
            self._all_sent()
        elif not self._drained.done():
            self._drained.set_result(None)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _all_sent(self) -> None:
        self._sending = False
        if self._upload is not None:
            self._upload.done()

    async def _pump(self, head: bytes, source: OneShot) -> None:
        """Send an image while it is read, each piece when the one before has left."""
        try:
            await self._sent((head,), len(head))
            async with contextlib.aclosing(source.chunks()) as chunks:
                async for chunk in chunks:
                    piece = memoryview(chunk).cast("B")
                    if piece:  # an empty one would be the end
                        size = b"%x\r\n" % len(piece)
                        await self._sent((size, piece, b"\r\n"), len(size) + 2)
            await self._sent((b"0\r\n\r\n",), 5)
            self._all_sent()
        except Exception as cause:
            error = ImageError(f"reading the image failed: {cause!r}")
            error.__cause__ = cause
            self._fail(error)

    async def _sent(self, pieces: Sequence[bytes | memoryview], framing_bytes: int) -> None:
        self._drained = drained = self._loop.create_future()
        self._send(pieces, framing_bytes)
        await drained


def _after(pieces: Sequence[bytes | memoryview], taken: int) -> list[bytes | memoryview]:
    """What is left of them, without a copy."""
    left: list[bytes | memoryview] = []
    for piece in pieces:
        if taken < len(piece):
            left.append(memoryview(piece)[taken:])
        taken = max(0, taken - len(piece))
    return left
