"""The framing of `POST /v1/stream/{model}`, for both of its ends; pure.

Both directions carry frames: two lengths as unsigned 32-bit big-endian numbers, then a head (JSON)
and a body of those lengths.

::

    head length | body length | head | body
    4 bytes     | 4 bytes     |      |

A client's head is a `StreamImage` and its body the encoded image. A server's head is one of
`Opened`, `StreamAnswer` and `Ended`, told apart by `"type"`, and its body is empty. A frame whose
two lengths are 0 is a heartbeat, in either direction, and means nothing else.

Rejected: WebSocket (another handshake and masking of every image byte, and `curl` cannot speak
it), multipart (the parser must look for the boundary in every byte, and a length is known here),
and gRPC (another stack for one call).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from fingerpost.client.wire import ErrorBody, ImageAnswer

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError

__all__ = [
    "HEARTBEAT",
    "MAX_HEAD_BYTES",
    "STREAM_TYPE",
    "Ended",
    "Frame",
    "FrameDecoder",
    "Opened",
    "StreamAnswer",
    "StreamImage",
    "frame_head",
    "read_head",
    "read_server_head",
]

STREAM_TYPE: Final = "application/x-fingerpost-stream"
# A key is a path or an id; a server's answer with 1,000 labels has some 60 KB.
MAX_HEAD_BYTES: Final = 4096

_LENGTHS: Final = struct.Struct(">II")
HEARTBEAT: Final = bytes(_LENGTHS.size)


class StreamImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Client to server, before an image's bytes.

    Attributes:
        key: comes back with the answer, as its `name`; at most `MAX_HEAD_BYTES` with the rest.
        deadline_ms: milliseconds the caller waits for this image, from its arrival on.
    """

    key: str = ""
    deadline_ms: float | None = None


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """Server to client, first: how many images it reads ahead of their answers, and how it beats.

    `model` is as asked for; `heartbeat_s` is the longest silence of a server that is well.
    """

    model: str
    window: int
    heartbeat_s: float


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """Server to client: the outcome for the image with that number, the first being 0.

    `version` is the model's version that it was given to.
    """

    seq: int
    version: str
    result: ImageAnswer


class Ended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ended"):
    """Server to client, last: it answered the first `taken` images, and no others.

    `reason` is `done` (the client had ended), `draining` (the worker leaves: send the rest to
    another one) or `failed`, with the error that ended it.
    """

    taken: int
    reason: Literal["done", "draining", "failed"]
    error: ErrorBody | None = None


class Frame(NamedTuple):
    """One frame; `oversize` is the length of a body over the limit, which was passed over."""

    head: bytes
    body: bytes
    oversize: int = 0


def frame_head(head: StreamImage | Opened | StreamAnswer | Ended, body_bytes: int = 0) -> bytes:
    """A frame's beginning; its body is to be written after it, so that it is copied nowhere."""
    data = msgspec.json.encode(head)
    return _LENGTHS.pack(len(data), body_bytes) + data


def read_head(data: bytes) -> StreamImage:
    """What a client says of an image. Raises `msgspec.MsgspecError`."""
    return _image.decode(data)


def read_server_head(data: bytes) -> Opened | StreamAnswer | Ended:
    """What a server says. Raises `msgspec.MsgspecError`."""
    head: Opened | StreamAnswer | Ended = _server.decode(data)
    return head


_image: Final = msgspec.json.Decoder(StreamImage)
_server: Final = msgspec.json.Decoder(Opened | StreamAnswer | Ended)


class FrameDecoder:
    """Bytes in, whole frames out; it holds no more than one frame and what was fed at once.

    ::

        decoder.feed(chunk)
        while (frame := decoder.take()) is not None:
            ...

    Args:
        max_head_bytes: a longer head raises `error`: the two ends have lost each other.
        max_body_bytes: a longer body is passed over as it comes, and told of in the frame.
        error: what to raise.
    """

    def __init__(
        self,
        *,
        max_body_bytes: int,
        error: type[FingerpostError],
        max_head_bytes: int = MAX_HEAD_BYTES,
    ) -> None:
        self._max_head = max_head_bytes
        self._max_body = max_body_bytes
        self._error = error
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: Frame | None = None

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer) or self._skipped is not None

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            data = data[passed:]
        self._buffer += data

    def take(self) -> Frame | None:
        """The next whole frame that is no heartbeat, or None while it has not all come.

        Raises:
            FingerpostError: of the class given, for a head that is too long.
        """
        if self._skip:
            return None
        if self._skipped is not None:
            frame, self._skipped = self._skipped, None
            return frame
        while len(self._buffer) >= _LENGTHS.size:
            head_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
            if head_bytes > self._max_head:
                raise self._error(
                    f"a frame's head claims {head_bytes:,} bytes, over the limit of "
                    f"{self._max_head:,}: frames are two lengths, a head and a body"
                )
            start = _LENGTHS.size + head_bytes
            fits = body_bytes <= self._max_body
            end = start + (body_bytes if fits else 0)
            if len(self._buffer) < end:
                return None
            with memoryview(self._buffer) as view:
                frame = Frame(bytes(view[_LENGTHS.size : start]), bytes(view[start:end]))
            del self._buffer[:end]
            if not fits:
                rest, self._buffer = bytes(self._buffer), bytearray()
                self._skip, self._skipped = body_bytes, frame._replace(oversize=body_bytes)
                self.feed(rest)
                return self.take()
            if frame.head or frame.body:
                return frame
        return None
