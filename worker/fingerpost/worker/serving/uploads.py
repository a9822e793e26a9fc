"""Read a request's body, raw or multipart, within limits.

A body is gathered in one growing `bytearray`, whose pieces are freed as soon as they are copied,
and becomes `bytes` once, unless it is large. Measured on 640 KB bodies (2 cores, per request):
0.28 ms; pieces kept in a list and joined 0.65 ms, one buffer of the announced length 0.8 ms,
`readexactly` 0.9 ms. The last three touch new pages for every body (300 page faults), the first
uses the same pages again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import ClientPayloadError, HttpVersion11, hdrs

from fingerpost.client.frames import STREAM_TYPE
from fingerpost.client.wire import FRAME_HEADER
from fingerpost.errors import ImageTooLarge, InvalidRequest, UnsupportedImage
from fingerpost.registry.http.request import PlainRequest
from fingerpost.worker.serving.multipart import MultipartSplitter, boundary_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy import uint8
    from numpy.typing import NDArray

    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.serving.frames import Frames
    from fingerpost.worker.serving.memory import BodyMemory, Held
    from fingerpost.worker.serving.multipart import Part

    Image = bytes | memoryview | NDArray[uint8]

__all__ = ["Uploads", "check_image_headers", "check_stream_headers", "check_tensor_headers"]

# In a request's memo: the limit of its body.
_LIMIT: Final = object()
# From here on a body is used where it was gathered.
_COPY_BYTES: Final = 1 << 21
# How precisely a stalled upload is noticed, in seconds.
_TIMER_S: Final = 0.1
# How long the rate of an upload is measured before it is judged, in seconds.
_RATE_S: Final = 20.0


def check_image_headers(request: Request, config: WorkerConfig) -> None:
    """Check the headers of a body of encoded images.

    Raises:
        ImageTooLarge: its Content-Length is over the limit of an image, or of a multipart body.
        UnsupportedImage: a Content-Encoding; images are compressed already, and a small body
            could decompress to any size.
    """
    memo = request.memo if isinstance(request, PlainRequest) else {}
    limit: int | None = memo.get(_LIMIT)
    if limit is None:
        _check_encoding(request, "the image's bytes")
        multipart = boundary_of(request.headers.get(hdrs.CONTENT_TYPE, "")) is not None
        limit = memo[_LIMIT] = config.requests.max_bytes if multipart else config.images.max_bytes
    _check_length(request, limit)


def check_tensor_headers(request: Request, config: WorkerConfig) -> None:
    """Check the headers of a body of JSON or tensors.

    Raises:
        ImageTooLarge: its Content-Length is over the limit of a whole request.
        UnsupportedImage: a Content-Encoding, as for `check_image_headers`.
    """
    _check_encoding(request, "the request")
    _check_length(request, config.requests.max_bytes, "send fewer images at a time")


def check_stream_headers(request: Request) -> None:
    """Check the headers of a stream.

    Raises:
        UnsupportedImage: another Content-Type, or a Content-Encoding.
        InvalidRequest: HTTP/1.0.
    """
    if request.content_type != STREAM_TYPE:
        raise UnsupportedImage(
            f"Content-Type {request.content_type!r} is not a stream: send {STREAM_TYPE}"
        )
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedImage("a stream's body is sent as it is, without Content-Encoding")
    if request.version < HttpVersion11:
        raise InvalidRequest("a stream needs HTTP/1.1 or later")


class Uploads:
    """Reads the bodies of requests, within the limits of the worker's settings."""

    def __init__(self, config: WorkerConfig, memory: BodyMemory, frames: Frames) -> None:
        self._config = config
        self._memory = memory
        self._frames = frames

    async def read_tensors(self, request: Request, held: Held) -> bytes | memoryview:
        """Read the whole body of JSON or tensors, at most `requests.max_bytes`; see `read_body`."""
        return await self.read_body(request, held, self._config.requests.max_bytes)

    async def read_body(self, request: Request, held: Held, limit: int) -> bytes | memoryview:
        """Read the whole body, raw, at most `limit` bytes.

        Args:
            held: counts its bytes, until `BodyMemory.give`.

        Raises:
            ImageTooLarge: more bytes than the limit, declared or sent; reading stops there.
            InvalidRequest: an upload that stalls, is too slow, or ends early.
            Overloaded: no memory for it, or too many unfinished uploads of this client.
        """
        limit = _allowed(request, held, limit)
        content = request.content
        if content.is_eof() and content.exception() is None:  # the whole body came with the headers
            _check_size(content.total_bytes, limit)
            self._memory.take(held, content.total_bytes)
            return content.read_nowait()
        _check_length(request, limit)
        data = bytearray()
        await self._receive(request, held, content.readany, data.extend, limit)
        # A copy takes 1 ms for a few megabytes, in which nothing else runs.
        return bytes(data) if len(data) < _COPY_BYTES else memoryview(data)

    def arrived_image(self, request: Request, held: Held) -> bytes | None:
        """The one image of a body that has arrived whole; None for all else: see `read_images`.

        Raises:
            ImageTooLarge, Overloaded: see `read_body`.
        """
        content = request.content
        if not content.is_eof() or content.exception() is not None or not _has_one(request):
            return None
        limit, size = _allowed(request, held, self._config.images.max_bytes), content.total_bytes
        _check_size(size, limit)
        self._memory.take(held, size)
        return content.read_nowait()

    async def read_images(self, request: Request, held: Held) -> list[tuple[str, Image]]:
        """Read the whole body and return `(name, bytes)` of each image in it, in order.

        A request with `Fingerpost-Frame` has no body, and one image: uint8
        `[height, width, channels]`, see `Frames.take`.

        A multipart body has an image in each part that has a file name or is called `data`; other
        parts are ignored. Any other body is one image, called `data`, whatever its Content-Type:
        that of `curl --data-binary` is a form's.

        Raises:
            ImageTooLarge: an image over `images.max_bytes`, a multipart body over
                `requests.max_bytes`, or too many parts; reading stops there.
            InvalidRequest: malformed multipart, or no image among its parts.
            InvalidRequest, Overloaded: see `read_body`.
            InvalidFrame: see `Frames.take`.
        """
        config = self._config
        if FRAME_HEADER in request.headers:
            return [("data", self._frames.take(request, held))]
        # aiohttp's own property parses the header, which takes 1 us and few requests need.
        boundary = boundary_of(request.headers.get(hdrs.CONTENT_TYPE, ""))
        if boundary is None:
            return [("data", await self.read_body(request, held, config.images.max_bytes))]
        splitter = MultipartSplitter(
            boundary,
            max_images=config.batching.max_queue,
            max_image_bytes=config.images.max_bytes,
        )
        body = await self._split(request, held, splitter)
        return [
            ("data" if part.filename is None else part.filename or "data", _own(body, part))
            for part in splitter.images
        ]

    async def read_fields(
        self, request: Request, held: Held, *, inputs: int
    ) -> list[tuple[str, bytes | memoryview]]:
        """Read a multipart body and return `(field, bytes)` of all its parts, in order.

        Args:
            inputs: how many parts an item has at most.

        Raises:
            ImageTooLarge, InvalidRequest, Overloaded: see `read_images`.
        """
        config = self._config
        boundary = boundary_of(request.headers.get(hdrs.CONTENT_TYPE, ""))
        if boundary is None:
            raise InvalidRequest("the body is not multipart")
        splitter = MultipartSplitter(
            boundary,
            max_images=config.batching.max_queue * inputs,
            max_image_bytes=config.images.max_bytes,
            whole=True,
        )
        body = await self._split(request, held, splitter)
        return [(part.name or "", _own(body, part)) for part in splitter.images]

    async def _split(self, request: Request, held: Held, splitter: MultipartSplitter) -> memoryview:
        """Read a multipart body into its parts."""

        async def next_piece() -> bytes:
            return b"" if splitter.done else await request.content.readany()

        limit = _allowed(request, held, self._config.requests.max_bytes)
        await self._receive(request, held, next_piece, splitter.feed, limit)
        splitter.finish()
        return memoryview(splitter.body)

    async def _receive(
        self,
        request: Request,
        held: Held,
        next_piece: Callable[[], Awaitable[bytes]],
        take: Callable[[bytes], object],
        limit: int,
    ) -> None:
        """Pass on all pieces of a body until an empty one; see `read_body`."""
        config, memory = self._config.requests, self._memory
        pause_s, rate = config.body_timeout_s, config.min_upload_rate
        now = asyncio.get_running_loop().time
        moved_at = judged_at = now()
        left = judged_left = limit
        try:
            with memory.upload(request.remote or ""):
                async with asyncio.timeout_at(moved_at + pause_s) as pause:
                    while piece := await next_piece():
                        left -= len(piece)
                        if left < 0:
                            raise ImageTooLarge(
                                f"the body has more than {limit:,} bytes: send less"
                            )
                        memory.take(held, len(piece))
                        take(piece)
                        # Setting a timer for every piece would take a tenth of the whole time.
                        if now() > moved_at + _TIMER_S:
                            moved_at = now()
                            pause.reschedule(moved_at + _TIMER_S + pause_s)
                            if moved_at > judged_at + _RATE_S:
                                if judged_left - left < rate * (moved_at - judged_at):
                                    raise InvalidRequest(
                                        f"the body arrives too slowly: {judged_left - left:,} "
                                        f"bytes in {_RATE_S:g} s, fewer than {rate:g} a second"
                                    )
                                judged_at, judged_left = moved_at, left
        except TimeoutError:
            raise InvalidRequest(f"the body stalled: no byte came for {pause_s:g} s") from None
        except ClientPayloadError as error:
            raise InvalidRequest(f"the body ended before its announced length: {error}") from error


def _has_one(request: Request) -> bool:
    """Whether a body is one image: it is neither multipart nor a frame."""
    memo = request.memo if isinstance(request, PlainRequest) else {}
    found: bool | None = memo.get(_has_one)
    if found is None:
        headers = request.headers
        found = FRAME_HEADER not in headers
        found = found and boundary_of(headers.get(hdrs.CONTENT_TYPE, "")) is None
        memo[_has_one] = found
    return found


def _allowed(request: Request, held: Held, limit: int) -> int:
    """The limit of a body, or that of its lease: of one of known length that was checked before."""
    most = held.grant.max_body_bytes
    return limit if most is None or request.content_length is not None else min(limit, most)


def _own(body: memoryview, part: Part) -> bytes | memoryview:
    data = body[part.start : part.end]
    return bytes(data) if len(data) < _COPY_BYTES else data


def _check_encoding(request: Request, what: str) -> None:
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.lower() != "identity":
        raise UnsupportedImage(
            f"Content-Encoding {encoding!r} is not accepted: send {what} uncompressed"
        )


def _check_length(request: Request, limit: int, advice: str = "send less") -> None:
    _check_size(request.content_length or 0, limit, advice)


def _check_size(length: int, limit: int, advice: str = "send less") -> None:
    if length > limit:
        raise ImageTooLarge(f"the body has {length:,} bytes, over the limit of {limit:,}: {advice}")
