"""A stream of images to one worker over ZeroMQ, shared by all images for one model."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from fingerpost.client.frames import Ended
from fingerpost.client.tasks.wire import HEADER_FIELD
from fingerpost.client.transport.answer import Answer
from fingerpost.client.zmq.messages import (
    CANCEL,
    END,
    HEAD_ERRORS,
    ImageBegun,
    ImageCancelled,
    StreamOpened,
    read_worker_order,
)
from fingerpost.client.zmq.reader import SocketReader
from fingerpost.errors import BadAnswer, Draining, ImageTooLarge, TlsFailed, Unreachable
from fingerpost.registry import LOAD_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client.transport.attempt import Attempt

__all__ = ["Exchange", "ZmqSession"]

_LOAD_FIELD: Final = LOAD_HEADER.lower().encode()
# Key, answer, load, and arrays.
_MAX_FRAMES: Final = 4
_LINGER_MS: Final = 100
_PING_MS: Final = 2_000
# A worker that answers no ping for so long is gone, or its process is stopped.
_SILENCE_MS: Final = 6_000
_EVENTS: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
)
_REFUSED: Final = frozenset(
    {
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    }
)


class _Status(msgspec.Struct, frozen=True):
    """The status of an answer, which is there with an error alone."""

    status: int = 200


_status: Final = msgspec.json.Decoder(_Status)


class Exchange:
    """One image that is sent, and its answer that is to come.

    Args:
        attempt: holds the image, and records the progress.
        peer: the worker's name in errors.
    """

    __slots__ = ("attempt", "peer", "size", "waiting")

    def __init__(self, attempt: Attempt, size: int, peer: str) -> None:
        self.attempt = attempt
        self.size = size
        self.peer = peer
        self.waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def check(self, now: float) -> None:
        """Give it up if it takes too long; called by a `DeadlineScheduler`."""
        if self.attempt.sent_at is None:
            return
        if reason := self.attempt.overdue(now, self.peer, begun=False):
            self.fail(Unreachable(f"{self.peer}: {reason}"))

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        if not self.waiting.done():
            self.waiting.set_exception(error)


class ZmqSession:
    """One stream. Make it inside a running event loop; it connects at once.

    ::

        OPENING --opened--> OPEN --ended, disconnected--> CLOSED
        OPENING --ended: refused--> CLOSED, with the worker's error for those that wait

    Args:
        context: of ZeroMQ.
        endpoint: where the worker listens.
        peer: the worker's name in errors.
        order: the first message.
        curve: options of the socket that encrypt it; none in clear.
        connect_timeout_s: how long it may take until it is open.

    Attributes:
        closed: whether it can no longer be used.
        stale: whether its worker ended it while it was idle, and an image crossed that.
        idle_since: when its last image was answered, in the event loop's time; infinite while any
            is not.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoint: str,
        peer: str,
        order: bytes,
        curve: Mapping[int, bytes],
        connect_timeout_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._credit = 0
        self._credit_bytes = 0
        self._max_image_bytes = 0
        self._answered = 0
        self._bytes = 0
        self._sent: dict[bytes, Exchange] = {}
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._number = 0
        self._greeted = False
        self._end: Answer | Exception | None = None
        self.closed = False
        self.stale = False
        self.idle_since = inf
        self._socket = context.socket(zmq.DEALER)
        options = {
            zmq.LINGER: _LINGER_MS,
            zmq.RECONNECT_IVL: -1,
            zmq.IPV6: int("[" in endpoint),
            zmq.HEARTBEAT_IVL: _PING_MS,
            zmq.HEARTBEAT_TIMEOUT: _SILENCE_MS,
            **curve,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        self._events = self._socket.get_monitor_socket(_EVENTS)
        self._monitor = SocketReader(self._events, self._event, max_frames=2)
        self._reader = SocketReader(self._socket, self._message, max_frames=_MAX_FRAMES)
        self._timer = self._loop.call_later(connect_timeout_s, self._late, connect_timeout_s)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._finish(ConnectionRefusedError(f"{endpoint}: {error}"))
        else:
            self._reader.send([b"", order])

    async def exchange(self, head: bytes, exchange: Exchange) -> Answer:
        """Send an image when there is credit for it, and wait for its answer.

        Raises:
            Unreachable: the connection broke or was closed, or the attempt was given up.
            OSError: there is no connection.
            TlsFailed: the worker does not take this client's key, or has another one itself.
            BadAnswer: it sends what is not of the protocol.
            Draining: it is leaving, and has not read the image.
            ImageTooLarge: the image is over its limit of a message.
        """
        self.idle_since = inf
        size = exchange.size
        try:
            await self._turn(size)
        except asyncio.CancelledError:
            self._rest()
            raise
        if self._end is not None:
            return self._ending()
        if size > max(self._max_image_bytes, self._credit_bytes):
            self._give_back(size)
            raise ImageTooLarge(
                f"the image has {size:,} bytes, over the limit of {self._max_image_bytes:,} of "
                f"{self._peer}: send a smaller one"
            )
        self._number += 1
        key = b"%d" % self._number
        self._sent[key] = exchange
        attempt, now = exchange.attempt, self._loop.time()
        attempt.begin(now)
        data: Any = attempt.data
        try:
            self._reader.send([key, head, data])
            attempt.wrote(size, now)
            attempt.done(now)
            return await exchange.waiting
        except zmq.ZMQError as error:
            self._finish(Unreachable(f"{self._peer}: {error}"))
            return self._ending()
        except BaseException:
            if not self.closed and key in self._sent:
                with contextlib.suppress(zmq.ZMQError):
                    self._reader.send([key, CANCEL])
            if exchange.waiting.done() and not exchange.waiting.cancelled():
                exchange.waiting.exception()  # mark it as retrieved
            raise

    def abort(self, reason: str) -> None:
        """Close it; what is in flight fails with `Unreachable`."""
        self._finish(Unreachable(f"{self._peer}: {reason}"))

    def close(self) -> None:
        """End the stream, and close the connection."""
        if not self.closed and self._greeted:
            with contextlib.suppress(zmq.ZMQError):
                self._reader.send([b"", END])
        self._finish(Unreachable(f"{self._peer}: the connection was closed"))

    # Credit.

    async def _turn(self, size: int) -> None:
        """Take credit for an image, in the order of their coming; at once after the end."""
        if self._end is None and (self._queue or not self._fits(size)):
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._queue.append((waiting, size))
            try:
                await waiting  # whoever wakes it has taken the credit
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled() and self._end is None:
                    self._give_back(size)
                raise
            return
        self._answered += 1
        self._bytes += size

    def _fits(self, size: int) -> bool:
        count = self._answered
        return count < self._credit and (not count or self._bytes + size <= self._credit_bytes)

    def _give_back(self, size: int) -> None:
        self._answered -= 1
        self._bytes -= size
        self._wake()
        self._rest()

    def _wake(self) -> None:
        while self._queue and (self._end is not None or self._fits(self._queue[0][1])):
            waiting, size = self._queue.popleft()
            if not waiting.done():
                self._answered += 1
                self._bytes += size
                waiting.set_result(None)

    def _rest(self) -> None:
        if not self._answered and not self._queue:
            self.idle_since = self._loop.time()

    # What the worker says.

    def _message(self, frames: list[zmq.Frame]) -> None:
        key = frames[0].bytes
        if 3 <= len(frames) <= _MAX_FRAMES:
            exchange = self._sent.pop(key, None)
            if exchange is None:
                self._broken("an answer for no image")
                return
            self._give_back(exchange.size)
            if not exchange.waiting.done():
                exchange.waiting.set_result(_answer(*[frame.bytes for frame in frames[1:]]))
            return
        if len(frames) != 2:
            self._broken(f"a message of {len(frames)} frames")
            return
        data = frames[1].bytes
        try:
            order = read_worker_order(data)
        except HEAD_ERRORS as error:
            self._broken(f"not a valid order: {error}")
            return
        match order:
            case StreamOpened():
                self._timer.cancel()
                self._credit, self._credit_bytes = order.credit, order.credit_bytes
                self._max_image_bytes = order.max_image_bytes
                self._wake()
            case ImageBegun() if key in self._sent:
                attempt = self._sent[key].attempt
                attempt.informed = True
                attempt.clock.progressed(self._loop.time())
            case ImageCancelled():
                if (exchange := self._sent.pop(key, None)) is not None:
                    self._give_back(exchange.size)
            case Ended():
                self._ended(order, data)
            case _:
                pass

    def _ended(self, order: Ended, data: bytes) -> None:
        if order.reason == "draining":
            end: Answer | Exception = Draining(f"{self._peer} is leaving: use another worker")
        elif order.error is not None and order.error.code != "invalid_request":
            end = _answer(data, b"")  # refused, or the lease has ended
        elif order.error is not None and not self._credit:
            end = _answer(data, b"")
        else:
            self.stale = True
            end = Unreachable(f"{self._peer}: the stream was ended, as it was idle")
        self._finish(end)

    def _broken(self, why: str) -> None:
        self._finish(BadAnswer(f"{self._peer}: {why}"))

    def _event(self, frames: list[zmq.Frame]) -> None:
        event = parse_monitor_message([frame.bytes for frame in frames])["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._greeted = True
        elif event in _REFUSED:
            self._finish(
                TlsFailed(
                    f"{self._peer}: no connection by ZeroMQ: it does not let this client's key in "
                    "(--zmq-clients there, ClientConfig.zmq_key here), or its key is another one"
                )
            )
        elif self._greeted:
            self._reader.read()  # what it said before
            self._finish(Unreachable(f"{self._peer}: closed without an answer"))
        else:
            self._finish(ConnectionRefusedError("no connection by ZeroMQ"))

    def _late(self, limit_s: float) -> None:
        self._finish(TimeoutError(f"no stream within {limit_s:g} s (connect_timeout_s)"))

    # The end.

    def _finish(self, end: Answer | Exception) -> None:
        """Close it, and tell those that wait."""
        if self.closed:
            return
        self.closed = True
        self._end = end
        self._timer.cancel()
        self._monitor.close()
        self._reader.close()
        self._socket.disable_monitor()
        self._events.close(0)
        self._socket.close()
        self._wake()
        sent, self._sent = self._sent, {}
        for exchange in sent.values():
            if exchange.waiting.done():
                continue
            if isinstance(end, Answer):
                exchange.waiting.set_result(end)
            else:
                exchange.waiting.set_exception(end)

    def _ending(self) -> Answer:
        if isinstance(self._end, Answer):
            return self._end
        raise self._end or Unreachable(f"{self._peer}: the connection was closed")


def _answer(body: bytes, load: bytes, arrays: bytes | None = None) -> Answer:
    """An answer as HTTP would have it."""
    try:
        status = _status.decode(body).status
    except HEAD_ERRORS:
        status = 502
    fields = {_LOAD_FIELD: load} if load else {}
    if arrays is not None:
        fields[HEADER_FIELD] = b"%d" % len(body)
        body += arrays
    return Answer(status, fields, body)
