"""Read images out of a request's body, raw or multipart, within limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import BodyPartReader, ClientPayloadError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from fingerpost.registry import ImageTooLarge, InvalidRequest, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeVar

    from fingerpost.worker.config import WorkerConfig

    T = TypeVar("T")

__all__ = ["check_headers", "read_images"]

# How much longer than its images a multipart body may be: boundaries and part headers.
_MULTIPART_ROOM = 64_000


def check_headers(request: web.Request, config: WorkerConfig) -> None:
    """Refuse what the headers alone give away, before a byte of the body is read.

    Raises:
        ImageTooLarge: a declared length over the limit.
        UnsupportedImage: a Content-Encoding; images are compressed already, and a small body
            could unfold to any size.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.lower() != "identity":
        raise UnsupportedImage(
            f"Content-Encoding {encoding!r} is not accepted: send the image's bytes as they are"
        )
    declared = request.content_length or 0
    limit = config.limits.max_bytes
    if declared > limit + (_MULTIPART_ROOM if _is_multipart(request) else 0):
        raise ImageTooLarge(
            f"the body has {declared:,} bytes, over the limit of {limit:,}: send a smaller image"
        )


async def read_images(request: web.Request, config: WorkerConfig) -> list[tuple[str, bytes]]:
    """Read the whole body and return `(name, bytes)` of each image in it, in order.

    A multipart body gives one image for each part that has a file name or is called `data`; other
    parts are passed over. Any other body is one image, called `data`, whatever its Content-Type:
    `curl --data-binary` claims a form. The byte limit holds for all images together.

    Raises:
        ImageTooLarge: more bytes than the limit; reading stops there.
        InvalidRequest: malformed multipart, no image among its parts, or a stalled upload.
    """
    budget = _Budget(config)
    if not _is_multipart(request):
        return [("data", await budget.read_all(request.content.readany))]
    try:
        reader = await request.multipart()
        images = []
        while (part := await budget.within(reader.next())) is not None:
            if not isinstance(part, BodyPartReader):
                raise InvalidRequest("multipart inside multipart is not read: send flat parts")
            wanted = part.filename is not None or part.name == "data"
            data = await budget.read_all(part.read_chunk)
            if wanted:
                images.append((part.filename or "data", data))
            if len(images) > config.max_queue:
                raise ImageTooLarge(
                    f"the body has more than {config.max_queue} images: send fewer at a time"
                )
    except (ValueError, LookupError, RuntimeError, AssertionError, HttpProcessingError) as error:
        raise InvalidRequest(f"the multipart body is malformed: {error}") from error
    if not images:
        raise InvalidRequest("the multipart body has no image: name its field 'data'")
    return images


class _Budget:
    """Bytes left for one request, and the longest pause within it."""

    def __init__(self, config: WorkerConfig) -> None:
        self._limit = config.limits.max_bytes
        self._left = self._limit
        self._pause_s = config.body_timeout_s

    async def within(self, step: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._pause_s):
                return await step
        except TimeoutError:
            raise InvalidRequest(
                f"the body stalled: no byte came for {self._pause_s:g} s"
            ) from None
        except ClientPayloadError as error:
            raise InvalidRequest(f"the body ended before its announced length: {error}") from error

    async def read_all(self, read: object) -> bytes:
        chunks: list[bytes] = []
        while chunk := await self.within(read()):  # type: ignore[operator]
            chunks.append(chunk)
            self._left -= len(chunk)
            if self._left < 0:
                raise ImageTooLarge(
                    f"the body has more than {self._limit:,} bytes: send a smaller image"
                )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _is_multipart(request: web.Request) -> bool:
    return request.content_type.startswith("multipart/")
