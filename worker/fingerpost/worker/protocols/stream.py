"""`POST /v1/stream/{model}`: many images over one connection, each answered when it is done.

The framing is `fingerpost.client.frames`, and the stream itself `StreamSession`. Flow control is
TCP's: no more than a window of images is read ahead of the answers that the client has read, so a
client that does not read soon cannot send, and the worker holds no more than that window for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import ClientPayloadError, hdrs, web

from fingerpost.client.frames import (
    HEARTBEAT,
    STREAM_TYPE,
    Ended,
    Frame,
    FrameDecoder,
    Opened,
    StreamAnswer,
    frame_head,
    read_head,
)
from fingerpost.client.wire import ErrorBody, ImageAnswer
from fingerpost.errors import FingerpostError, InvalidRequest, Overloaded
from fingerpost.registry import LOAD_HEADER
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.protocols.classify import labels_wanted
from fingerpost.worker.protocols.streams.link import StreamImage, StreamOrder
from fingerpost.worker.protocols.streams.session import StreamSession
from fingerpost.worker.serving.admission import deadline_s
from fingerpost.worker.serving.errors import typed_error
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.tenancy import flow_of
from fingerpost.worker.serving.uploads import check_stream_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fingerpost.registry import LoadReport
    from fingerpost.security.leases.verifier import Permit
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.admission import Admission
    from fingerpost.worker.serving.memory import BodyMemory
    from fingerpost.worker.serving.routes import RouteContext
    from fingerpost.worker.serving.tenancy import Tenancy
    from fingerpost.worker.telemetry.metrics import WorkerMetrics
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["StreamProtocol"]

# How often a stream asks whether there is memory for its next image.
_FULL_S: Final = 0.05


class StreamProtocol:
    """Streams of images in, a stream of answers out; `add_to` makes the route.

    Args:
        load: makes this moment's load report.
    """

    def __init__(
        self,
        manager: ModelManager,
        admission: Admission,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        load: Callable[[web.Request], LoadReport],
        memory: BodyMemory,
    ) -> None:
        self._manager = manager
        self._admission = admission
        self._config = config
        self._metrics = metrics
        self._load = load
        self._memory = memory

    def add_to(self, context: RouteContext) -> None:
        """Add the route."""
        self._tenancy = context.tenancy
        routes = ProtocolRoutes(context, "/v1/stream", typed_error)
        routes.stream("/v1/stream/{model}", self._stream, check=check_stream_headers)

    async def _stream(
        self, request: web.Request, record: RequestRecord, permit: Permit | None
    ) -> web.StreamResponse:
        order = StreamOrder(
            reference=model_reference(request, self._manager),
            top=labels_wanted(request),
            grant=NO_LIMITS if permit is None else permit.grant,
            flow=flow_of(request),
            left_s=deadline_s(request),
            lease_left_s=inf if permit is None else permit.ends_at - time.time(),
        )
        with self._manager.acquire(order.reference) as served:
            record.served_by(served.model, served.version)
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: STREAM_TYPE, LOAD_HEADER: self._load(request).to_header()}
        )
        response.enable_chunked_encoding()
        response.force_close()  # what a client sends after the end is not a request
        await response.prepare(request)
        link = _HttpLink(
            request,
            response,
            order,
            config=self._config,
            admission=self._admission,
            memory=self._memory,
            tenancy=self._tenancy,
        )
        session = StreamSession(
            link,
            order,
            manager=self._manager,
            admission=self._admission,
            config=self._config,
            metrics=self._metrics,
        )
        await link.carry(session)
        return response


class _HttpLink:
    """The request and the response of a stream, as a `StreamLink`."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        order: StreamOrder,
        *,
        config: WorkerConfig,
        admission: Admission,
        memory: BodyMemory,
        tenancy: Tenancy,
    ) -> None:
        self._request = request
        self._response = response
        self._order = order
        self._admission = admission
        self._memory = memory
        self._tenancy = tenancy
        self._stream_config = config.streams
        self._body_timeout_s = config.requests.body_timeout_s
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(max_body_bytes=config.images.max_bytes, error=InvalidRequest)
        self._plain = order.flow is DEFAULT_FLOW and order.grant is NO_LIMITS
        self._unfinished = 0  # bytes of the next image
        self._writing = asyncio.Lock()
        self._written_at = self._loop.time()
        self._stop: Callable[[], object] = lambda: None
        self.lost: ConnectionError | None = None

    async def carry(self, session: StreamSession) -> None:
        """Run the stream over this connection.

        Raises:
            ConnectionError: the client closed the connection, or did not read for too long.
        """
        self._stop = session.stop
        beat = asyncio.create_task(self._beat())
        try:
            await session.run()
            if self.lost:
                raise self.lost
            await self._response.write_eof()
        finally:
            self._memory.hold(self._order.grant, -self._unfinished)
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def opened(self, window: int) -> None:
        """See `StreamLink.opened`."""
        heartbeat_s = self._stream_config.heartbeat_s
        model = str(self._order.reference)
        await self._send(Opened(model=model, window=window, heartbeat_s=heartbeat_s))

    async def next(self, unanswered: Callable[[], int]) -> StreamImage | None:
        """See `StreamLink.next`; waits until there is memory, and the tenant's limits allow it.

        Raises:
            InvalidRequest: invalid frames, an end within a frame, or no byte for too long.
        """
        grant, idle_s = self._order.grant, self._stream_config.idle_timeout_s
        if grant is not NO_LIMITS:
            limits = self._tenancy.limits
            while wait_s := limits.wait_s(grant, time.monotonic()):  # noqa: ASYNC110
                await asyncio.sleep(min(wait_s, 1.0))
        while (frame := self._decoder.take()) is None:
            partial = self._decoder.partial
            pause_s = self._body_timeout_s if partial else idle_s
            try:
                async with asyncio.timeout(pause_s):
                    while not self._memory.has_room(grant):  # noqa: ASYNC110 - others' bodies
                        await asyncio.sleep(_FULL_S)
                    chunk = await self._request.content.readany()
            except TimeoutError:
                if unanswered() and not partial:
                    continue  # the client waits for its answers
                if not self._memory.has_room(grant):
                    raise Overloaded("no memory for the image: use another worker") from None
                raise InvalidRequest(f"the stream stalled: no byte for {pause_s:g} s") from None
            except ClientPayloadError as error:
                raise InvalidRequest(f"the stream broke off: {error}") from error
            if not chunk:
                if partial:
                    raise InvalidRequest("the stream ended within a frame")
                return None
            self._decoder.feed(chunk)
            self._hold_unfinished()
        self._hold_unfinished()
        return self._image(frame)

    def _hold_unfinished(self) -> None:
        """Count what has arrived of the next image."""
        more, self._unfinished = self._decoder.buffered - self._unfinished, self._decoder.buffered
        self._memory.hold(self._order.grant, more)

    def _image(self, frame: Frame) -> StreamImage:
        order, size = self._order, len(frame.body)
        self._memory.hold(order.grant, size)
        if not self._plain:  # it has waited for the limits before
            self._tenancy.enter(order.grant, order.flow, size, checked=True)
        found = StreamImage(body=frame.body, oversize=frame.oversize)
        if frame.head:
            try:
                head = read_head(frame.head)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                found.problem = InvalidRequest(f"the image's head is not valid: {error}")
            else:
                found.name, found.deadline_ms = head.key, head.deadline_ms
        return found

    def done(self, image: StreamImage) -> None:
        """See `StreamLink.done`."""
        order = self._order
        if not self._plain:
            self._tenancy.leave(order.grant, order.flow, 1, 0)
        self._memory.hold(order.grant, -len(image.body))

    async def observed(
        self, image: StreamImage, work: Callable[[], Awaitable[ImageAnswer]]
    ) -> ImageAnswer:
        """See `StreamLink.observed`; it is the whole stream that is logged and traced."""
        return await work()

    @contextlib.asynccontextmanager
    async def admitted(self, image: StreamImage, served: ServedVersion) -> AsyncIterator[bool]:
        """See `StreamLink.admitted`; the stream was admitted as a whole."""
        with self._admission.count():
            yield False

    async def answer(
        self, seq: int, image: StreamImage, result: ImageAnswer | FingerpostError
    ) -> None:
        """See `StreamLink.answer`."""
        version = "" if image.served is None else image.served.version
        if isinstance(result, FingerpostError):
            result = ImageAnswer(name=image.name, error=ErrorBody.of(result))
        await self._send(StreamAnswer(seq=seq, version=version, result=result))

    async def ended(self, end: Ended) -> None:
        """See `StreamLink.ended`."""
        await self._send(end)

    async def _send(self, head: Opened | StreamAnswer | Ended) -> None:
        await self._write(frame_head(head))

    async def _write(self, data: bytes) -> None:
        """Write a frame; wait while the client does not read. A lost connection ends the stream."""
        if self.lost:
            return
        stall_s = self._stream_config.idle_timeout_s
        try:
            async with self._writing, asyncio.timeout(stall_s):
                await self._response.write(data)
        except TimeoutError:
            self._lose(ConnectionAbortedError(f"the client read nothing for {stall_s:g} s"))
        except ConnectionError as error:
            self._lose(error)
        else:
            self._written_at = self._loop.time()

    def _lose(self, error: ConnectionError) -> None:
        self.lost = error
        self._stop()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _beat(self) -> None:
        """Send a heartbeat whenever nothing else was written for `heartbeat_s`."""
        pause_s = self._stream_config.heartbeat_s
        while not self.lost:
            await asyncio.sleep(pause_s)
            if self._loop.time() - self._written_at >= pause_s:
                await self._write(HEARTBEAT)
