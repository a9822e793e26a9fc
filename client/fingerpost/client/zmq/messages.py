"""The messages between a DEALER and the ROUTER of a worker, as both ends read and write them.

::

    client                                    worker
    "", open                           ->
                                       <-     "", opened
    key, head, image                   ->
                                       <-     key, answer, load
    key, cancel                        ->
                                       <-     key, cancelled
    "", end                            ->
                                       <-     "", ended

Each comma separates two frames. A message of three frames carries an image or its answer, one of
four an answer and the arrays that its JSON describes, and one of two carries an order, JSON with a
`type`. `docs/protocols.md` says it all.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from fingerpost.client.frames import MAX_HEAD_BYTES, Ended

__all__ = [
    "BEGUN",
    "CANCEL",
    "CANCELLED",
    "END",
    "HEAD_ERRORS",
    "KEY_META",
    "MAX_HEAD_BYTES",
    "MAX_KEY_BYTES",
    "CancelImage",
    "EndStream",
    "ImageBegun",
    "ImageCancelled",
    "ImageHead",
    "OpenStream",
    "StreamOpened",
    "read_client_order",
    "read_image_head",
    "read_worker_order",
]

# Of `Instance.meta`: the public key of a worker's port; without it nothing is encrypted there.
KEY_META: Final = "zmq_key"
MAX_KEY_BYTES: Final = 255


class OpenStream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="open"):
    """The first message of a client.

    Attributes:
        model: a model reference; empty for the worker's default.
        top: how many labels an answer has; 0 for all.
        lease: the signed right to send images, where the worker asks for one.
        priority: the class of all images; on the wire `class`.
        boot_id: of the process that is meant; 0 if any will do.
        infer: the answers are those of the model's task, whatever that is.
        binary: arrays of answers are wanted as bytes, in a frame of their own; with `infer`.
        mask, size: of the answers of a segmentation; with `infer`.
    """

    model: str = ""
    top: Annotated[int, msgspec.Meta(ge=0, le=999_999)] = 5
    lease: str = ""
    priority: str = msgspec.field(default="", name="class")
    boot_id: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    infer: bool = False
    binary: bool = False
    mask: Literal["png", "rle"] = "png"
    size: Literal["image", "model"] = "image"


class EndStream(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """A client's last message: there are no more images."""


class CancelImage(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """A client no longer wants the answer for the key in front of this."""


class ImageHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The second frame of an image.

    Attributes:
        deadline_ms: for how many milliseconds its client waits for it, from its arrival on.
        waited_ms: for how long its client has waited already, where workers refused it.
        suspect: a worker fell silent on it.
        traceparent: the trace that it belongs to.
        json_bytes: the bytes behind this are not an image, but inputs by their names, in the binary
            form of the Open Inference Protocol, of which so many are JSON; in streams with `infer`.
    """

    deadline_ms: float | None = None
    waited_ms: Annotated[int, msgspec.Meta(ge=0, lt=10**9)] = 0
    suspect: bool = False
    traceparent: Annotated[str, msgspec.Meta(max_length=100)] = ""
    json_bytes: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] | None = None


class StreamOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A worker's first message, with the credit that it grants.

    Attributes:
        model: as requested.
        credit: how many images may be unanswered.
        credit_bytes: how many bytes they may have together; one alone may have more.
        max_image_bytes: the largest image.
    """

    model: str
    credit: Annotated[int, msgspec.Meta(ge=1)]
    credit_bytes: Annotated[int, msgspec.Meta(ge=1)]
    max_image_bytes: Annotated[int, msgspec.Meta(ge=1)]


class ImageBegun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """The worker begins with the suspect image of the key in front of this."""


class ImageCancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    """The image of the key in front of this gets no answer, and gives back its credit."""


END: Final = msgspec.json.encode(EndStream())
CANCEL: Final = msgspec.json.encode(CancelImage())
BEGUN: Final = msgspec.json.encode(ImageBegun())
CANCELLED: Final = msgspec.json.encode(ImageCancelled())

_client: Final = msgspec.json.Decoder(OpenStream | EndStream | CancelImage)
_worker: Final = msgspec.json.Decoder(StreamOpened | ImageBegun | ImageCancelled | Ended)
_image: Final = msgspec.json.Decoder(ImageHead)

# What a head raises that is not valid; the second one where it is nested too deep.
HEAD_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def read_client_order(data: bytes) -> OpenStream | EndStream | CancelImage:
    """Decode an order of a client. Raises `HEAD_ERRORS`."""
    found: OpenStream | EndStream | CancelImage = _client.decode(data)
    return found


def read_worker_order(data: bytes) -> StreamOpened | ImageBegun | ImageCancelled | Ended:
    """Decode an order of a worker. Raises `HEAD_ERRORS`."""
    found: StreamOpened | ImageBegun | ImageCancelled | Ended = _worker.decode(data)
    return found


def read_image_head(data: bytes) -> ImageHead:
    """Decode the head of an image; an empty one has the defaults. Raises `HEAD_ERRORS`."""
    return _image.decode(data) if data else ImageHead()
