"""The framing of `POST /v1/stream/{model}`, for both of its ends. Does no I/O.

Both directions carry frames: two lengths as unsigned 32-bit big-endian numbers, then a head (JSON)
and a body of these lengths.

::

    head length | body length | head | body
    4 bytes     | 4 bytes     |      |

A client's head is a `StreamImage` and its body the encoded image. A server's head is one of
`Opened`, `StreamAnswer` and `Ended`, distinguished by `"type"`, and its body is empty. A frame
whose two lengths are 0 is a heartbeat, in either direction.

Rejected: WebSocket (another handshake, a mask over every image byte, and `curl` cannot use it),
multipart (the parser must look for the boundary in every byte, and a length is known here), and
gRPC (another protocol stack for one call).
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
# A client's head holds little more than a key. A server's answer with 1,000 labels has about 60 KB.
MAX_HEAD_BYTES: Final = 4096

_LENGTHS: Final = struct.Struct(">II")
HEARTBEAT: Final = bytes(_LENGTHS.size)
_HEARTBEATS: Final = HEARTBEAT * 8
_BULK_BYTES: Final = 1 << 14
# From here on a body is not copied: that takes 1 ms for 4 MB.
_COPY_BYTES: Final = 1 << 21


class StreamImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The head of a client's frame, whose body is an image.

    Attributes:
        key: the answer repeats it as its `name`. The whole head has at most `MAX_HEAD_BYTES`.
        deadline_ms: how many milliseconds the caller waits for this image, from its arrival on.
    """

    key: str = ""
    deadline_ms: float | None = None


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The first frame of a server.

    Attributes:
        model: the model reference of the request.
        window: how many images the server reads ahead of their answers.
        heartbeat_s: a healthy server sends a frame at least this often, in seconds.
    """

    model: str
    window: int
    heartbeat_s: float


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """A server's frame with the outcome for one image.

    Attributes:
        seq: the number of the image, from 0.
        version: the version of the model that classified it.
        result: the predictions or the error.
    """

    seq: int
    version: str
    result: ImageAnswer


class Ended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ended"):
    """The last frame of a server.

    Attributes:
        taken: the server has answered the first so many images, and no others.
        reason: `done` (the client had ended the stream), `draining` (the worker is leaving: send
            the rest to another one) or `failed`, with the `error` that ended the stream.
    """

    taken: int
    reason: Literal["done", "draining", "failed"]
    error: ErrorBody | None = None


class Frame(NamedTuple):
    """One frame. `oversize` is the length of a body over the limit, which was skipped; or 0."""

    head: bytes
    body: bytes | memoryview
    oversize: int = 0


def frame_head(head: StreamImage | Opened | StreamAnswer | Ended, body_bytes: int = 0) -> bytes:
    """The lengths and the head of a frame. The body is written separately, to save a copy."""
    data = msgspec.json.encode(head)
    return _LENGTHS.pack(len(data), body_bytes) + data


def read_head(data: bytes) -> StreamImage:
    """Decode the head of a client's frame. Raises `msgspec.MsgspecError`."""
    return _image.decode(data)


def read_server_head(data: bytes) -> Opened | StreamAnswer | Ended:
    """Decode the head of a server's frame. Raises `msgspec.MsgspecError`."""
    head: Opened | StreamAnswer | Ended = _server.decode(data)
    return head


_image: Final = msgspec.json.Decoder(StreamImage)
_server: Final = msgspec.json.Decoder(Opened | StreamAnswer | Ended)


class FrameDecoder:
    """Bytes in, whole frames out. It holds at most one frame and the bytes of one `feed`.

    ::

        decoder.feed(chunk)
        while (frame := decoder.take()) is not None:
            ...

    Args:
        max_head_bytes: a longer head raises `error`: the two ends are no longer in step.
        max_body_bytes: a longer body is skipped as it arrives, and its frame says so.
        error: the class of the error to raise.
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
        """Whether the bytes so far end in the middle of a frame."""
        return bool(self._buffer) or self._skipped is not None

    @property
    def buffered(self) -> int:
        """How many bytes it holds."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            data = data[passed:]
        self._buffer += data

    def take(self) -> Frame | None:
        """The next whole frame that is not a heartbeat; None if it has not arrived completely.

        Raises:
            FingerpostError: of the class `error`, for a head that is too long.
        """
        if self._skip:
            return None
        if self._skipped is not None:
            frame, self._skipped = self._skipped, None
            return frame
        while len(self._buffer) >= _LENGTHS.size:
            if self._buffer.startswith(_HEARTBEATS):
                # In bulk: a million of them took a second.
                zeros = self._buffer[:_BULK_BYTES]
                count = (len(zeros) - len(zeros.lstrip(b"\0"))) // _LENGTHS.size
                del self._buffer[: count * _LENGTHS.size]
                continue
            head_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
            if head_bytes > self._max_head:
                raise self._error(
                    f"the head of a frame has {head_bytes:,} bytes, more than the limit of "
                    f"{self._max_head:,}: a frame is two lengths, a head and a body"
                )
            start = _LENGTHS.size + head_bytes
            fits = body_bytes <= self._max_body
            end = start + (body_bytes if fits else 0)
            if len(self._buffer) < end:
                return None
            head = bytes(self._buffer[_LENGTHS.size : start])
            if end - start > _COPY_BYTES:
                body, self._buffer = memoryview(self._buffer)[start:end], self._buffer[end:]
                return Frame(head, body)
            with memoryview(self._buffer) as view:
                frame = Frame(head, bytes(view[start:end]))
            del self._buffer[:end]
            if not fits:
                rest, self._buffer = bytes(self._buffer), bytearray()
                self._skip, self._skipped = body_bytes, frame._replace(oversize=body_bytes)
                self.feed(rest)
                return self.take()
            if frame.head or frame.body:
                return frame
        return None
