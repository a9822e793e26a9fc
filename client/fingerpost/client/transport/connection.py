"""One HTTP/1.1 connection to a worker, for one exchange of image and answer at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.transport.answer import AnswerReader
from fingerpost.client.transport.in_kernel import waits_for_link
from fingerpost.errors import BadAnswer, ImageError, TlsFailed, Unreachable
from fingerpost.registry.load import MAX_LOAD_BYTES
from fingerpost.security.tls.problems import tls_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.transport.answer import Answer
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.client.transport.tls_socket import TlsSocket
    from fingerpost.errors import FingerpostError

__all__ = ["Connection"]

_READ_BYTES: Final = 1 << 14  # an answer has a few hundred
# If a connection that was idle for less than this ends without an answer, the worker has died.
_STALE_S: Final = 1.0
_RESET: Final = struct.pack("ii", 1, 0)  # linger, for 0 s


class Connection:
    """A connected socket that carries one exchange at a time. Make it inside a running event loop.

    The event loop's callbacks read and write the socket themselves, without a transport: the head
    and the image are passed to the kernel in one call and are not copied elsewhere; exactly the
    bytes that the kernel has accepted count as sent; and the socket is closed when `close` returns.
    It needs an event loop with `add_reader`: asyncio's, except the proactor loop of Windows, or
    uvloop's.

    ::

        IDLE --exchange--> SENDING --all sent--> WAITING --answer--> IDLE
        SENDING --answer: the worker does not want the rest--> CLOSED, with the answer
        any --end, reset, invalid bytes, `abort`, cancellation--> CLOSED

    In the middle of an exchange `close` resets the connection, because the kernel would otherwise
    go on sending what it holds of an image that is no longer wanted.

    Args:
        sock: connected and non-blocking, plain or with TLS; the connection owns it from now on.
        peer: the worker's name in errors.

    Attributes:
        closed: whether it can no longer be used.
        stale: whether the last exchange found the connection closed by the worker: it had been
            idle for a while, and ended without one byte of an answer. Most probably the worker has
            not seen the request, and another connection may succeed.
        idle_since: when the last exchange ended, in the event loop's time; infinite before the
            first.
    """

    __slots__ = (
        "_attempt",
        "_drained",
        "_framing_bytes",
        "_loop",
        "_peer",
        "_reader",
        "_sending",
        "_socket",
        "_unfinished",
        "_unsent",
        "_waiting",
        "_was_idle",
        "_writing",
        "closed",
        "idle_since",
        "stale",
    )

    def __init__(self, sock: socket.socket | TlsSocket, peer: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._peer = peer
        self._reader = AnswerReader(peer)
        self._waiting: asyncio.Future[Answer] | None = None
        self._attempt: Attempt | None = None
        self._unfinished = False
        self._sending = False  # part of the request is still to be passed to the kernel
        self._unsent: Sequence[bytes | memoryview] = ()
        self._framing_bytes = 0  # how many of the unsent bytes are not part of the image
        self._writing = False
        self._drained: asyncio.Future[None] | None = None
        self._was_idle = False
        self.closed = False
        self.stale = False
        self.idle_since = inf
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def sent(self) -> bool:
        """Whether an image was sent whole and its answer is still to come."""
        return self._attempt is not None and self._attempt.sent_at is not None

    async def exchange(self, head: bytes, attempt: Attempt | None = None) -> Answer:
        """Send a request and wait for its answer.

        Args:
            head: request line and header fields, whose framing must match the body: a `OneShot` is
                sent in chunks, any other image as it is.
            attempt: holds the image, and records the progress; None for a request without a body.

        Raises:
            Unreachable: the connection broke or was closed, or `abort` was called.
            TlsFailed: the worker does not accept our certificate, or wants one.
            BadAnswer: the answer is not valid HTTP/1.1, or incomplete.
            ImageError: the source of a one-shot image failed.
        """
        now = self._loop.time()
        self._was_idle = now - self.idle_since >= _STALE_S
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting = waiting
        self._attempt = attempt
        self._reader.max_body_bytes = (
            MAX_LOAD_BYTES if attempt is None else attempt.max_answer_bytes
        )
        self._sending = self._unfinished = True
        self.stale = False
        pump: asyncio.Task[None] | None = None
        try:
            if attempt is None:
                self._send((head,), len(head))
            elif isinstance(attempt.data, OneShot):
                attempt.begin(now)
                pump = asyncio.create_task(self._pump(head, attempt.data))
            else:
                attempt.begin(now)
                self._send((head, attempt.body), len(head))
            answer = await waiting
            self._unfinished = self._sending
            if self._unfinished or not self._reader.keep:
                self.close()
        except BaseException as error:  # cancelled too: nothing can follow half a request
            if attempt is not None and isinstance(error, asyncio.CancelledError):
                attempt.held_up = waits_for_link(self._socket)
            self.close()
            if attempt is not None:
                attempt.informed = self._reader.informed
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # mark it as retrieved, even if a cancellation came first
            raise
        finally:
            self._waiting = self._attempt = self._drained = None
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
        self.idle_since = self._loop.time()
        return answer

    def check(self, now: float) -> None:
        """Abort an attempt whose phase takes too long; called by a `DeadlineScheduler`.

        At the deadline the whole call ends, which is not this attempt's matter. A worker that is
        late is asked first whether it is still at work: see `LivenessChecks`.
        """
        if self._attempt is not None:
            # An answer that has begun is not computed any more.
            reason = self._attempt.overdue(now, self._peer, begun=self._reader.begun)
            if reason:
                self.abort(reason)

    def abort(self, reason: str) -> None:
        """End the exchange in progress with `Unreachable`; `reason` becomes its message."""
        self._fail(Unreachable(f"{self._peer}: {reason}"))

    def close(self) -> None:
        """Close the socket at once; an exchange in progress fails."""
        if self.closed:
            return
        self.closed = True
        self._stop_writing()
        self._loop.remove_reader(self._socket.fileno())
        if self._unfinished:
            with contextlib.suppress(OSError):  # the peer may have closed it already
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
        self.abort("the connection was closed")

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
        if waiting is None or waiting.done():  # the end, or bytes without a request
            self.close()
            return
        try:
            answer = self._reader.feed(data) if data else self._end(broken)
        except (BadAnswer, TlsFailed, Unreachable) as error:
            self._fail(error)
            return
        if answer is not None:
            waiting.set_result(answer)
        elif self._attempt is not None and self._reader.progressed():
            self._attempt.clock.progressed(self._loop.time())

    def _end(self, broken: OSError | None) -> Answer:
        """The answer that the end of the connection completes, or the error that it is."""
        if isinstance(broken, ssl.SSLError):
            raise TlsFailed(f"{self._peer}: {tls_problem(broken)}")
        if not self._reader.begun:
            self.stale = self._was_idle and not self._reader.informed
            raise Unreachable(f"{self._peer}: {broken or 'closed without an answer'}")
        if broken is not None:
            raise BadAnswer(f"{self._peer}: broke during an answer: {broken}") from broken
        return self._reader.end()

    # Writing.

    def _send(self, pieces: Sequence[bytes | memoryview], framing_bytes: int) -> None:
        self._unsent = pieces
        self._framing_bytes = framing_bytes
        self._write()

    def _write(self) -> None:
        """Pass on as many bytes as the kernel accepts; called again when it accepts more."""
        try:
            accepted = self._socket.sendmsg(self._unsent)
        except (BlockingIOError, InterruptedError):
            accepted = 0
        except ConnectionError:
            # The worker may have answered before it closed: `_readable` will see.
            self._stop_writing()
            return
        except OSError as error:
            self._stop_writing()
            self._fail(Unreachable(f"{self._peer}: {error}"))
            return
        now = self._loop.time()
        if accepted and self._attempt is not None:
            framing_bytes = min(accepted, self._framing_bytes)
            self._framing_bytes -= framing_bytes
            self._attempt.wrote(accepted - framing_bytes, now)
        if accepted < sum(map(len, self._unsent)):
            self._unsent = _after(self._unsent, accepted)
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._write)
            return
        self._unsent = ()
        self._stop_writing()
        if self._drained is None:
            self._all_sent(now)
        elif not self._drained.done():
            self._drained.set_result(None)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _all_sent(self, now: float) -> None:
        self._sending = False
        if self._attempt is not None:
            self._attempt.done(now)

    async def _pump(self, head: bytes, source: OneShot) -> None:
        """Send an image while it is read, each chunk when the one before was sent."""
        try:
            await self._sent((head,), len(head))
            async with contextlib.aclosing(source.chunks()) as chunks:
                async for chunk in chunks:
                    piece = memoryview(chunk).cast("B")
                    if piece:  # an empty chunk would end the body
                        size = b"%x\r\n" % len(piece)
                        await self._sent((size, piece, b"\r\n"), len(size) + 2)
            await self._sent((b"0\r\n\r\n",), 5)
            self._all_sent(self._loop.time())
        except Exception as cause:  # the chunks are the caller's own code, which may raise anything
            error = ImageError(f"reading the image failed: {cause!r}")
            error.__cause__ = cause
            self._fail(error)

    async def _sent(self, pieces: Sequence[bytes | memoryview], framing_bytes: int) -> None:
        self._drained = drained = self._loop.create_future()
        self._send(pieces, framing_bytes)
        await drained


def _after(pieces: Sequence[bytes | memoryview], accepted: int) -> list[bytes | memoryview]:
    """What is left of the pieces after the first bytes were accepted, without a copy."""
    left: list[bytes | memoryview] = []
    for piece in pieces:
        if accepted < len(piece):
            left.append(memoryview(piece)[accepted:])
        accepted = max(0, accepted - len(piece))
    return left
