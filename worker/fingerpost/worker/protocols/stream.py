"""`POST /v1/stream/{model}`: many images up one connection, answers down it as they are ready.

The framing is `fingerpost.client.frames`. Flow control is TCP's: no more than a window of images
is read ahead of the answers that the client has taken, so a client that does not read stops its
own sending, and the worker holds no more than that window for it.

An image counts as a request in flight while the model has it. An open stream that sends nothing
counts as no load, but a drain waits until it has ended.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientPayloadError, HttpVersion11, hdrs, web

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
from fingerpost.client.wire import ImageAnswer
from fingerpost.errors import (
    DeadlineExceeded,
    FingerpostError,
    ImageTooLarge,
    InvalidRequest,
    UnsupportedImage,
)
from fingerpost.registry import LOAD_HEADER, ModelReference, WorkerState
from fingerpost.worker.protocols.classify import error_body, image_answer, labels_wanted
from fingerpost.worker.serving.admission import PATIENCE_S, Admission, deadline_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry import LoadReport
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["StreamProtocol"]

logger = logging.getLogger(__name__)


class StreamProtocol:
    """`add_to` makes the route.

    Args:
        load: makes this moment's load report.
    """

    def __init__(
        self,
        admission: Admission,
        manager: ModelManager,
        config: WorkerConfig,
        load: Callable[[], LoadReport],
    ) -> None:
        self._admission = admission
        self._manager = manager
        self._config = config
        self._load = load

    def add_to(self, app: web.Application) -> None:
        """Add the route."""
        self._admission.stream(app, "/v1/stream/{model}", self._stream, check=_check)

    async def _stream(self, request: web.Request, record: RequestRecord) -> web.StreamResponse:
        top = labels_wanted(request)
        reference = self._admission.reference(request)
        with self._manager.acquire(reference) as served:
            record.served_by(served.model, served.version)
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: STREAM_TYPE, LOAD_HEADER: self._load().to_header()}
        )
        response.enable_chunked_encoding()
        response.force_close()  # what a client still sends after the end is no request
        await response.prepare(request)
        await _Stream(
            request, response, reference, top, self._admission, self._manager, self._config
        ).run()
        return response


def _check(request: web.Request) -> None:
    """Refuse by the headers what cannot be a stream."""
    if request.content_type != STREAM_TYPE:
        raise UnsupportedImage(
            f"Content-Type {request.content_type!r} is no stream: send {STREAM_TYPE}"
        )
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedImage("a stream's body is sent as it is, without Content-Encoding")
    if request.version < HttpVersion11:
        raise InvalidRequest("a stream needs HTTP/1.1 or later")


class _Stream:
    """One stream's life.

    `_scope` is how reading ends from outside: when the worker drains, when the stream's deadline
    passes, or when the client is lost.
    """

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        reference: ModelReference,
        top: int,
        admission: Admission,
        manager: ModelManager,
        config: WorkerConfig,
    ) -> None:
        self._request = request
        self._response = response
        self._reference = reference
        self._top = top
        self._admission = admission
        self._manager = manager
        self._stream_config = config.streams
        self._request_config = config.requests
        self._max_image_bytes = config.images.max_bytes
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(max_body_bytes=config.images.max_bytes, error=InvalidRequest)
        left_s = deadline_s(request)
        self._scope = asyncio.timeout(left_s)
        self._images: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written_at = self._loop.time()
        self._taken = 0
        self._reading = False
        self._stopped = False
        self._lost: ConnectionError | None = None

    async def run(self) -> None:
        """Take and answer images until one side ends.

        Raises:
            ConnectionError: the client went away, or read none of its answers for too long.
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
            tasks = [beat, *self._images]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> None:
        """Read no further."""
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
        return self._failed(DeadlineExceeded("the stream's deadline has passed"))

    def _failed(self, error: FingerpostError) -> Ended:
        return Ended(taken=self._taken, reason="failed", error=error_body(error))

    async def _next(self) -> Frame | None:
        """The next image, once there is room for it; None where the client has ended.

        Raises:
            InvalidRequest: no frames, or cut off within one, or nothing came for too long.
        """
        streams, requests = self._stream_config, self._request_config
        while len(self._images) >= streams.window or self._bytes >= requests.max_bytes:
            self._room.clear()
            await self._room.wait()
        while (frame := self._decoder.take()) is None:
            partial = self._decoder.partial
            pause_s = requests.body_timeout_s if partial else streams.idle_timeout_s
            try:
                async with asyncio.timeout(pause_s):
                    chunk = await self._request.content.readany()
            except TimeoutError:
                if self._images and not partial:
                    continue  # the client waits for us
                raise InvalidRequest(f"the stream stalled: no byte for {pause_s:g} s") from None
            except ClientPayloadError as error:
                raise InvalidRequest(f"the stream broke off: {error}") from error
            if not chunk:
                if partial:
                    raise InvalidRequest("the stream ended within a frame")
                return None
            self._decoder.feed(chunk)
        return frame

    def _start(self, frame: Frame) -> None:
        size = len(frame.body)
        task = asyncio.create_task(self._answer(self._taken, frame))
        self._taken += 1
        self._bytes += size
        self._images.add(task)

        def done(_: object) -> None:
            self._images.discard(task)
            self._bytes -= size
            self._room.set()

        task.add_done_callback(done)

    async def _answer(self, seq: int, frame: Frame) -> None:
        """Answer one image; it keeps its place in the window until the answer is on its way."""
        name = version = ""
        try:
            wanted = _head(frame)
            name = wanted.key
            if frame.oversize:
                raise ImageTooLarge(
                    f"the image has {frame.oversize:,} bytes, over the limit of "
                    f"{self._max_image_bytes:,}: send a smaller one"
                )
            left_s = PATIENCE_S if wanted.deadline_ms is None else wanted.deadline_ms / 1000
            deadline = self._loop.time() + min(PATIENCE_S, left_s)
            with self._admission.count(), self._manager.acquire(self._reference) as served:
                version = served.version
                async with asyncio.timeout_at(deadline):
                    outcome = await served.engine.classify(frame.body, deadline=deadline)
                result = image_answer(name, outcome, served.labels, self._top)
            self._admission.classified(self._reference.model, 1)
        except TimeoutError:
            result = ImageAnswer(
                name=name, error=error_body(DeadlineExceeded("too late: its deadline has passed"))
            )
        except FingerpostError as error:
            result = ImageAnswer(name=name, error=error_body(error))
        except Exception:
            logger.exception("image %d of a stream failed", seq)
            fault = FingerpostError("this server has a fault: see its log")
            result = ImageAnswer(name=name, error=error_body(fault))
        await self._send(StreamAnswer(seq=seq, version=version, result=result))

    async def _send(self, head: Opened | StreamAnswer | Ended) -> None:
        await self._write(frame_head(head))

    async def _write(self, data: bytes) -> None:
        """Write a frame, and wait where the client does not keep up; a lost client ends it all."""
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
        """Say that this worker lives, whenever nothing else was said for a while."""
        pause_s = self._stream_config.heartbeat_s
        while not self._lost:
            await asyncio.sleep(pause_s)
            if self._loop.time() - self._written_at >= pause_s:
                await self._write(HEARTBEAT)


def _head(frame: Frame) -> StreamImage:
    try:
        return read_head(frame.head) if frame.head else StreamImage()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the image's head is not as it should be: {error}") from error
