"""Decodes a message that anybody may have sent, after a look at how much memory it would take.

An empty message within a message takes two bytes on the wire and fifty times as many in memory, so
64 MB become three gigabytes. A walk over the tags, which costs half a microsecond each, finds that
out before anything is made. The wire format is that of
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from fingerpost.errors import InvalidRequest
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

__all__ = ["decode_message", "decode_without"]

# Of 512 images, the most in a request, each an example of TensorFlow has some ten fields.
_MAX_FIELDS: Final = 1 << 15
# Numbers of one byte each, of which each takes eight in memory.
_MAX_PACKED_BYTES: Final = 1 << 23
_VARINTS: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    }
)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def decode_message(name: str, data: bytes) -> Any:
    """The message of a class, by its full name.

    Raises:
        InvalidRequest: it is cut short, or otherwise not a valid message, or has more fields or
            packed numbers than any request needs.
    """
    return decode_without(name, data, 0)[0]


def decode_without(name: str, data: bytes, lifted: int) -> tuple[Any, list[memoryview]]:
    """The message of a class without one of its fields of bytes, and those bytes as views.

    Args:
        name: the full name of the class.
        data: the message.
        lifted: the number of the field; 0 leaves all in.

    Raises:
        InvalidRequest: see `decode_message`.
    """
    kind = message_class(name)
    walk = _Walk(lifted)
    try:
        walk.top(data, kind.DESCRIPTOR)
        return kind.FromString(walk.rest(data)), walk.views(data)
    except (DecodeError, IndexError) as error:
        why = "it is cut short" if isinstance(error, IndexError) else str(error)
        raise InvalidRequest(
            f"the message is not a valid {name}: {why}: compare the .proto files, and the "
            "library that wrote it"
        ) from error


class _Walk:
    """Counts the fields of a message, and of those within it."""

    def __init__(self, lifted: int) -> None:
        self._left = _MAX_FIELDS
        self._lifted = lifted
        self._places: list[tuple[int, int, int]] = []  # of tags, and begins and ends of bytes

    def top(self, data: bytes, kind: Descriptor) -> None:
        """Walk over the whole message; what is cut short raises `DecodeError`."""
        self.message(data, 0, len(data), kind, self._lifted)

    def rest(self, data: bytes) -> bytes:
        """The message without the fields that are lifted out."""
        if not self._places:
            return data
        pieces, at = [], 0
        for tag, _, end in self._places:
            pieces.append(data[at:tag])
            at = end
        pieces.append(data[at:])
        return b"".join(pieces)

    def views(self, data: bytes) -> list[memoryview]:
        """The bytes of the fields that are lifted out."""
        whole = memoryview(data)
        return [whole[begin:end] for _, begin, end in self._places]

    def message(self, data: bytes, at: int, end: int, kind: Descriptor, lifted: int = 0) -> None:
        """Walk over the fields between two places; what is cut short raises `DecodeError`."""
        inner, packed = _fields(kind)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise InvalidRequest(
                    f"the message has more than {_MAX_FIELDS:,} fields: send tensors as raw bytes "
                    "(raw_input_contents, tensor_content), and fewer images at a time"
                )
            place = at
            tag, at = _varint(data, at)
            number, form = tag >> 3, tag & 7
            if form == _LENGTH:
                length, at = _varint(data, at)
                if at + length > end:
                    raise DecodeError(f"field {number} claims {length:,} bytes, past the end")
                if number in inner:
                    self.message(data, at, at + length, inner[number])
                elif length > _MAX_PACKED_BYTES and number in packed:
                    raise InvalidRequest(
                        f"field {number} has {length:,} bytes of numbers of variable length, over "
                        f"the limit of {_MAX_PACKED_BYTES:,}: send them as raw bytes"
                    )
                elif number == lifted:
                    self._places.append((place, at, at + length))
                at += length
            elif form == _VARINT:
                _, at = _varint(data, at)
            elif form == _FIXED32:
                at += 4
            elif form == _FIXED64:
                at += 8
            else:
                raise DecodeError(f"field {number} has wire type {form}")
        if at != end:
            raise DecodeError("its last field is cut short")


@cache
def _fields(kind: Descriptor) -> tuple[dict[int, Descriptor], frozenset[int]]:
    """The messages within a message, and its numbers of variable length, by their numbers."""
    fields: list[Any] = list(kind.fields)
    inner = {each.number: each.message_type for each in fields if each.message_type}
    return inner, frozenset(each.number for each in fields if each.type in _VARINTS)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise DecodeError("a number has more than ten bytes")
