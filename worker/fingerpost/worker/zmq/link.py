"""The stream of one client of ZeroMQ."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from fingerpost.client.wire import SUSPECT_HEADER, ClassifyAnswer
from fingerpost.client.zmq.messages import (
    BEGUN,
    CANCELLED,
    HEAD_ERRORS,
    MAX_HEAD_BYTES,
    StreamOpened,
    read_image_head,
)
from fingerpost.errors import FingerpostError, InvalidRequest, Overloaded
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.protocols.streams.link import StreamImage
from fingerpost.worker.zmq.heads import ReceivedImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fingerpost.client.frames import Ended
    from fingerpost.client.wire import ImageAnswer
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.streams.link import StreamOrder
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.serving.routes import RouteContext

__all__ = ["ZmqLink", "error_json"]

_NONE_LEFT = "sent an image without credit for it"


class ZmqLink:
    """One client's stream, as a `StreamLink`.

    Each image is a request of its own, as over HTTP: it is admitted, counted, logged and traced by
    itself, and refused with its own error.

    Args:
        context: what all protocols of the worker share.
        config: the worker's settings.
        order: what the stream was opened for.
        head: of its first message.
        send: sends frames to the client, or loses it.
        cancel: cancels an image that has begun.
    """

    def __init__(
        self,
        context: RouteContext,
        config: WorkerConfig,
        order: StreamOrder,
        head: Any,
        send: Callable[[list[bytes | memoryview]], object],
    ) -> None:
        self._context = context
        self._order = order
        self._head = head
        self._send = send
        self._window = config.streams.window
        self._max_bytes = config.requests.max_bytes
        self._max_image_bytes = config.images.max_bytes
        self._idle_timeout_s = config.streams.idle_timeout_s
        self._arrived: deque[StreamImage] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._finished = False
        self._unanswered: dict[ReceivedImage, StreamImage] = {}
        self._bytes = 0
        self.stop: Callable[[], object] = lambda: None
        self.cancel: Callable[[StreamImage], bool] = lambda _: False
        self.lost: ConnectionError | None = None

    def take(self, key: bytes, head: bytes, body: memoryview) -> str:
        """Take an image that has arrived; why its client breaks the rules, or nothing."""
        size = len(body)
        count = len(self._unanswered)
        if count >= self._window or (count and self._bytes + size > self._max_bytes):
            return _NONE_LEFT
        grant = self._order.grant
        received = ReceivedImage(self._head, key, size, grant)
        image = StreamImage(name=key.decode("utf-8", "backslashreplace"), mark=received)
        self._unanswered[received] = image
        self._bytes += size
        try:
            if len(head) > MAX_HEAD_BYTES:
                raise InvalidRequest(f"the image's head has more than {MAX_HEAD_BYTES} bytes")
            read = read_image_head(head)
            received.set_head(read)
            image.deadline_ms = read.deadline_ms
            if read.json_bytes is not None and self._order.infer is None:
                raise InvalidRequest("json_bytes: open the stream with infer for named inputs")
            most = self._max_image_bytes if read.json_bytes is None else self._max_bytes
            if size > most:
                image.oversize = size
            else:
                self._context.memory.take(received, size)
                # Small ones are copied, so that they do not hold more than they have.
                image.body = body if size >= 1 << 16 else bytes(body)
        except FingerpostError as error:
            image.problem = error
        except HEAD_ERRORS as error:
            image.problem = InvalidRequest(f"the image's head is not valid: {error}")
        if image.problem is not None:
            image.body = b""
        self._arrived.append(image)
        self._wake()
        return ""

    def give_up(self, key: bytes) -> None:
        """The client no longer wants the answer for a key."""
        for received, image in self._unanswered.items():
            if received.key == key:
                if not self.cancel(image):
                    with contextlib.suppress(ValueError):
                        self._arrived.remove(image)
                        self.done(image)
                return

    def finish(self) -> None:
        """The client sends no more."""
        self._finished = True
        self._wake()

    def lose(self, error: ConnectionError) -> None:
        """The connection is gone."""
        if self.lost is None:
            self.lost = error
            self._wake()
            self.stop()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def opened(self, window: int) -> None:
        """See `StreamLink.opened`."""
        found = StreamOpened(
            model=str(self._order.reference),
            credit=window,
            credit_bytes=self._max_bytes,
            max_image_bytes=self._max_image_bytes,
        )
        self._order_out(b"", msgspec.json.encode(found))

    async def next(self, unanswered: Callable[[], int]) -> StreamImage | None:
        """See `StreamLink.next`.

        Raises:
            InvalidRequest: nothing came for too long.
        """
        while not self._arrived:
            if self._finished or self.lost:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._waiting
            except TimeoutError:
                if not unanswered():
                    raise InvalidRequest(
                        f"the stream was idle for {self._idle_timeout_s:g} s"
                    ) from None
            finally:
                self._waiting = None
        return self._arrived.popleft()

    async def observed(
        self, image: StreamImage, work: Callable[[], Awaitable[ImageAnswer]]
    ) -> ImageAnswer:
        """See `StreamLink.observed`."""
        received = _received(image)
        with self._context.observer.request(received) as received.record:
            record = received.record
            record.model = self._order.reference.model
            try:
                found = await work()
            except FingerpostError as error:
                if isinstance(error, Overloaded):
                    self._context.overloaded(received, error)
                record.failed(error)
                raise
            record.status = 200
            return found

    @contextlib.asynccontextmanager
    async def admitted(self, image: StreamImage, served: ServedVersion) -> AsyncIterator[bool]:
        """See `StreamLink.admitted`."""
        context, received = self._context, _received(image)
        tenancy, admission, grant = context.tenancy, context.admission, self._order.grant
        if received.record is not None:
            received.record.served_by(served.model, served.version)
        flow = tenancy.flow(received, grant)
        admission.admit(received, served, _nothing, flow)
        plain = flow is DEFAULT_FLOW and grant is NO_LIMITS
        if not plain:
            tenancy.enter(grant, flow, received.size)
        try:
            with admission.count():
                if SUSPECT_HEADER not in received.headers:
                    yield False
                    return

                def begin() -> None:
                    self._order_out(received.key, BEGUN)

                limit_s = served.engine.alone_limit_s
                async with context.quarantine.turn(begin, limit_s) as alone:
                    yield alone
        finally:
            if not plain:
                tenancy.leave(grant, flow, 1, 0)

    async def answer(
        self, seq: int, image: StreamImage, result: ImageAnswer | FingerpostError
    ) -> None:
        """See `StreamLink.answer`; it gives back the image's credit."""
        received = _received(image)
        if self._forget(received) and self.lost is None:
            load = self._context.load(received).to_header().encode()
            answer = _answer_json(image, result, infer=self._order.infer is not None)
            failed = isinstance(result, FingerpostError)
            arrays = [] if failed or received.arrays is None else [received.arrays]
            self._send([received.key, answer, load, *arrays])

    async def ended(self, end: Ended) -> None:
        """See `StreamLink.ended`."""
        self._order_out(b"", msgspec.json.encode(end))

    def done(self, image: StreamImage) -> None:
        """See `StreamLink.done`."""
        received = _received(image)
        self._context.memory.give(received)
        if self._forget(received):  # it was cancelled
            self._order_out(received.key, CANCELLED)

    def close(self) -> None:
        """Give up what was not read."""
        while self._arrived:
            self._context.memory.give(_received(self._arrived.popleft()))

    def _forget(self, received: ReceivedImage) -> bool:
        """Give back an image's credit; whether it had any."""
        if self._unanswered.pop(received, None) is None:
            return False
        self._bytes -= received.size
        return True

    def _order_out(self, key: bytes, order: bytes) -> None:
        if self.lost is None:
            self._send([key, order])


def _received(image: StreamImage) -> ReceivedImage:
    found: Any = image.mark
    return found  # type: ignore[no-any-return]


def _nothing(_: object) -> None:
    """There are no more headers to check."""


def _answer_json(
    image: StreamImage, result: ImageAnswer | FingerpostError, *, infer: bool
) -> bytes:
    """The body of HTTP's answer, or its error with the status."""
    if isinstance(result, FingerpostError):
        return error_json(result)
    served = image.served
    if served is None:
        raise RuntimeError("an answer of no version")
    if not infer:
        found: Any = ClassifyAnswer(model=served.model, version=served.version, results=(result,))
    else:
        found = {
            "model": served.model,
            "version": served.version,
            "task": served.task.value,
            "results": [result],
        }
    return msgspec.json.encode(found)


def error_json(error: FingerpostError) -> bytes:
    """An error as HTTP has it in its body, with the status beside it."""
    return b'%b,"status":%d}' % (error.to_json()[:-1], error.status)
