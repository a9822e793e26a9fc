"""`POST /v1/stream/{model}`: many images over one connection, each answered when it is done.

The framing is `fingerpost.client.frames`. Flow control is TCP's: no more than a window of images
is read ahead of the answers that the client has read, so a client that does not read soon cannot
send, and the worker holds no more than that window for it.

An image counts as a request in flight while the engine has it. An open stream without images does
not count as load, but a drain waits for its end.

Where leases are required, no image is read after the end of the lease that the stream was opened
with, and those that were read are answered: the client opens another stream with a new lease.
Rejected: a frame that renews the lease, which every client would have to know.
"""

from __future__ import annotations

import asyncio
import logging
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
    StreamImage,
    frame_head,
    read_head,
)
from fingerpost.client.wire import ErrorBody, ImageAnswer
from fingerpost.errors import (
    DeadlineExceeded,
    FingerpostError,
    ImageTooLarge,
    InvalidRequest,
    LeaseExpired,
    Overloaded,
)
from fingerpost.registry import LOAD_HEADER, ModelReference, WorkerState
from fingerpost.registry.http_server import internal_error
from fingerpost.security.grant import NO_LIMITS, Grant
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.protocols.classify import image_answer, labels_wanted
from fingerpost.worker.protocols.stream_result import task_result
from fingerpost.worker.serving.admission import DEFAULT_DEADLINE_S, Admission, deadline_s
from fingerpost.worker.serving.errors import typed_error
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.tenancy import flow_of
from fingerpost.worker.serving.uploads import check_stream_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry import LoadReport
    from fingerpost.security.leases.verifier import Permit
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.memory import BodyMemory
    from fingerpost.worker.serving.routes import RouteContext
    from fingerpost.worker.serving.tenancy import Tenancy
    from fingerpost.worker.telemetry.metrics import UnlockedCounter, WorkerMetrics
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["StreamProtocol"]

logger = logging.getLogger(__name__)

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
        top = labels_wanted(request)
        reference = model_reference(request, self._manager)
        with self._manager.acquire(reference) as served:
            record.served_by(served.model, served.version)
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: STREAM_TYPE, LOAD_HEADER: self._load(request).to_header()}
        )
        response.enable_chunked_encoding()
        response.force_close()  # what a client sends after the end is not a request
        await response.prepare(request)
        await _Stream(
            request,
            response,
            reference,
            top,
            manager=self._manager,
            admission=self._admission,
            config=self._config,
            memory=self._memory,
            images=self._metrics.of(reference.model).images,
            lease_ends_at=inf if permit is None else permit.ends_at,
            tenancy=self._tenancy,
            grant=NO_LIMITS if permit is None else permit.grant,
        ).run()
        return response


class _Stream:
    """One open stream.

    `_scope` ends its reading from outside: when the worker drains, when the stream's deadline
    passes, or when the connection is lost.
    """

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        reference: ModelReference,
        top: int,
        *,
        manager: ModelManager,
        admission: Admission,
        config: WorkerConfig,
        memory: BodyMemory,
        images: UnlockedCounter,
        lease_ends_at: float,
        tenancy: Tenancy,
        grant: Grant,
    ) -> None:
        self._request = request
        self._response = response
        self._reference = reference
        self._top = top
        self._manager = manager
        self._admission = admission
        self._memory = memory
        self._classified = images
        self._tenancy = tenancy
        self._grant = grant
        self._flow = flow_of(request)
        self._stream_config = config.streams
        self._request_config = config.requests
        self._max_image_bytes = config.images.max_bytes
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(max_body_bytes=config.images.max_bytes, error=InvalidRequest)
        left_s = deadline_s(request)
        lease_s = lease_ends_at - time.time()
        self._by_lease = lease_s < (inf if left_s is None else left_s)
        self._scope = asyncio.timeout(lease_s if self._by_lease else left_s)
        self._images: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._unfinished = 0  # bytes of the next image
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written_at = self._loop.time()
        self._taken = 0
        self._reading = False
        self._stopped = False
        self._lost: ConnectionError | None = None

    async def run(self) -> None:
        """Read and answer images until one side ends the stream.

        Raises:
            ConnectionError: the client closed the connection, or did not read for too long.
        """
        beat = asyncio.create_task(self._beat())
        try:
            with self._admission.streaming(self._stop):
                await self._send(
                    Opened(
                        model=str(self._reference),
                        window=self._stream_config.window,
                        heartbeat_s=self._stream_config.heartbeat_s,
                    )
                )
                ended = await self._take_all()
                if self._images and not self._lost:
                    await asyncio.wait(self._images)
                await self._send(ended)
                if self._lost:
                    raise self._lost
                await self._response.write_eof()
        finally:
            self._memory.hold(self._grant, -self._unfinished)
            tasks = [beat, *self._images]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> None:
        """Stop reading; what was read is answered."""
        self._stopped = True
        if self._reading and not self._scope.expired():
            self._scope.reschedule(self._loop.time())

    async def _take_all(self) -> Ended:
        try:
            async with self._scope:
                self._reading = True
                try:
                    while not self._stopped and (frame := await self._next()) is not None:
                        self._start(frame)
                finally:
                    self._reading = False
            if not self._stopped:
                return Ended(taken=self._taken, reason="done")
        except TimeoutError:
            pass
        except FingerpostError as error:
            return self._failed(error)
        if self._admission.state is WorkerState.DRAINING:
            return Ended(taken=self._taken, reason="draining")
        if self._by_lease and self._lost is None:
            return self._failed(
                LeaseExpired("the stream's lease has ended: open another stream with a new one")
            )
        return self._failed(DeadlineExceeded("the stream's deadline has passed"))

    def _failed(self, error: FingerpostError) -> Ended:
        return Ended(taken=self._taken, reason="failed", error=ErrorBody.of(error))

    async def _next(self) -> Frame | None:
        """The next image, once there is room for it; None at the client's end of the stream.

        Raises:
            InvalidRequest: invalid frames, an end within a frame, or no byte for too long.
        """
        streams, requests = self._stream_config, self._request_config
        while len(self._images) >= streams.window or self._bytes >= requests.max_bytes:
            self._room.clear()
            await self._room.wait()
        if self._grant is not NO_LIMITS:
            limits = self._tenancy.limits
            while wait_s := limits.wait_s(self._grant, time.monotonic()):  # noqa: ASYNC110
                await asyncio.sleep(min(wait_s, 1.0))
        while (frame := self._decoder.take()) is None:
            partial = self._decoder.partial
            pause_s = requests.body_timeout_s if partial else streams.idle_timeout_s
            try:
                async with asyncio.timeout(pause_s):
                    while not self._memory.has_room(self._grant):  # noqa: ASYNC110 - others' bodies
                        await asyncio.sleep(_FULL_S)
                    chunk = await self._request.content.readany()
            except TimeoutError:
                if self._images and not partial:
                    continue  # the client waits for its answers
                if not self._memory.has_room(self._grant):
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
        return frame

    def _hold_unfinished(self) -> None:
        """Count what has arrived of the next image."""
        more, self._unfinished = self._decoder.buffered - self._unfinished, self._decoder.buffered
        self._memory.hold(self._grant, more)

    def _start(self, frame: Frame) -> None:
        size = len(frame.body)
        task = asyncio.create_task(self._answer(self._taken, frame))
        self._taken += 1
        self._bytes += size
        self._memory.hold(self._grant, size)
        self._images.add(task)
        grant, flow = self._grant, self._flow
        plain = flow is DEFAULT_FLOW and grant is NO_LIMITS
        if not plain:  # it has waited for the limits before
            self._tenancy.enter(grant, flow, size, checked=True)

        def done(_: object) -> None:
            if not plain:
                self._tenancy.leave(grant, flow, 1, 0)
            self._images.discard(task)
            self._bytes -= size
            self._memory.hold(grant, -size)
            self._room.set()

        task.add_done_callback(done)

    async def _answer(self, seq: int, frame: Frame) -> None:
        """Answer one image; it keeps its place in the window until its answer is written."""
        name = version = ""
        try:
            wanted = _head(frame)
            name = wanted.key
            if frame.oversize:
                raise ImageTooLarge(
                    f"the image has {frame.oversize:,} bytes, over the limit of "
                    f"{self._max_image_bytes:,}: send a smaller one"
                )
            left_s = DEFAULT_DEADLINE_S if wanted.deadline_ms is None else wanted.deadline_ms / 1000
            deadline = self._loop.time() + min(DEFAULT_DEADLINE_S, left_s)
            most = self._grant.max_body_bytes
            if most is not None and len(frame.body) > most:
                raise ImageTooLarge(
                    f"the image has {len(frame.body):,} bytes, over the limit of {most:,} of this "
                    "lease: send a smaller one"
                )
            with self._admission.count(), self._manager.acquire(self._reference) as served:
                version = served.version
                body, flow, top = frame.body, self._flow, self._top
                async with asyncio.timeout_at(deadline):
                    if served.task is Task.CLASSIFICATION:
                        outcome = await served.engine.classify(body, deadline=deadline, flow=flow)
                        result = image_answer(name, outcome, served.labels, top)
                    else:
                        result = await task_result(served, name, body, deadline, flow, top)
            self._classified.inc()
        except TimeoutError:
            result = ImageAnswer(
                name=name, error=ErrorBody.of(DeadlineExceeded("the image's deadline has passed"))
            )
        except FingerpostError as error:
            result = ImageAnswer(name=name, error=ErrorBody.of(error))
        except Exception:
            logger.exception("image %d of a stream failed", seq)
            result = ImageAnswer(name=name, error=ErrorBody.of(internal_error()))
        await self._send(StreamAnswer(seq=seq, version=version, result=result))

    async def _send(self, head: Opened | StreamAnswer | Ended) -> None:
        await self._write(frame_head(head))

    async def _write(self, data: bytes) -> None:
        """Write a frame; wait while the client does not read. A lost connection ends the stream."""
        if self._lost:
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
        self._lost = error
        self._stop()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _beat(self) -> None:
        """Send a heartbeat whenever nothing else was written for `heartbeat_s`."""
        pause_s = self._stream_config.heartbeat_s
        while not self._lost:
            await asyncio.sleep(pause_s)
            if self._loop.time() - self._written_at >= pause_s:
                await self._write(HEARTBEAT)


def _head(frame: Frame) -> StreamImage:
    try:
        return read_head(frame.head) if frame.head else StreamImage()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the image's head is not valid: {error}") from error
