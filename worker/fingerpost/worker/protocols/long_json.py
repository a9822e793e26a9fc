"""Long JSON, read without blocking the event loop.

Decoding JSON holds Python's lock until it is done, so that a thread would not help: three million
numbers (33 MB) take 0.5 s in any thread. What makes a request long is lists of numbers and base64
strings. They are found by their characters alone and cut out; what is left is short, or refused.
The numbers and strings are then decoded in pieces of a millisecond or two, each in its turn.

Rejected: a streaming JSON parser (each number a call, 100 times slower); a limit on the length of
JSON, which would refuse what TensorFlow Serving's clients send.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from fingerpost.errors import ImageTooLarge, InvalidRequest
from fingerpost.worker.protocols.json_values import decode_json, numbers

if TYPE_CHECKING:
    import msgspec
    from numpy.typing import NDArray

    from fingerpost.worker.serving.turns import Turns

    T = TypeVar("T")

__all__ = ["SHORT_BYTES", "LongJson", "read_base64", "read_json", "read_numbers"]

# JSON of no more than this is decoded as a whole: at most 4 ms, for 20,000 empty lists.
SHORT_BYTES: Final = 1 << 16
# The length of a piece: about 1 ms of numbers.
_PIECE_BYTES: Final = 1 << 16
# Shorter lists and strings are not worth cutting out: those of 500 images are 128 KB.
_MIN_BYTES: Final = 256
# What an image may take beside its list or string.
_IMAGE_BYTES: Final = 512
_LEAST_REST_BYTES: Final = 1 << 18
_MAX_AXES: Final = 8

_NUMBER: Final = b"0123456789+-.eE"
_SPACE: Final = b" \t\r\n"
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"


def _table(**classes: bytes) -> bytes:
    """A table for `bytes.translate`: 1, but the character `to` for those of a class."""
    table = bytearray(b"\1" * 256)
    for to, members in classes.items():
        for each in members:
            table[each] = 0 if to == "none" else ord(to)
    return bytes(table)


# 0 for what a list of numbers consists of, or a base64 string; 1 for what ends it.
_ENDS_LIST: Final = _table(none=_NUMBER + _SPACE + b"[],")
_ENDS_STRING: Final = _table(none=_BASE64)
_DIGITS_ALIKE: Final = bytes.maketrans(_NUMBER, b"0" * len(_NUMBER))
_FLAT: Final = bytes.maketrans(b"[]", b"  ")
# Once spaces are gone and digits alike: what the decoder does not see when brackets are gone too.
_MISPLACED: Final = (b",]", b"[,", b"]0", b"0[", b"[]", b"][")
_OPENING: Final = re.compile(rb"[,\s]*\[[\[\s]*")


class LongJson:
    """JSON from which lists of numbers and base64 strings may have been cut out.

    Attributes:
        text: the JSON, with `{"": 0}`, `{"": 1}`, ... in their places.
    """

    def __init__(self, text: bytes | memoryview, cut: list[memoryview] | None = None) -> None:
        self.text = text
        self._cut = cut or []

    def decode(self, kind: type[T], what: str) -> T:
        """The JSON as a type, where `long` tells what was cut out. Raises `InvalidRequest`."""
        return decode_json(self.text, kind, what)

    def long(self, value: msgspec.Raw) -> memoryview | None:
        """The text of the list or the string that was cut out here; None for any other value.

        A list's text has its brackets, a string's does not have its quotes.
        """
        if not self._cut or len(memoryview(value)) > 16:
            return None
        text = bytes(value)
        if not text.startswith(b'{"":') or not text[4:-1].isdigit():
            return None
        number = int(text[4:-1])
        return self._cut[number] if number < len(self._cut) else None


async def read_json(
    text: bytes | memoryview, turns: Turns, *, max_images: int, what: str
) -> LongJson:
    """Cut out of JSON what is long, unless it is short as a whole.

    Args:
        max_images: most images in it, each one list or string.

    Raises:
        ImageTooLarge: it is long in other ways.
    """
    if len(text) <= SHORT_BYTES:
        return LongJson(text)
    view = memoryview(text)
    cut: list[memoryview] = []
    rest: list[bytes | memoryview] = []
    max_rest = max(_LEAST_REST_BYTES, _IMAGE_BYTES * max_images)
    done = left = 0
    for start, end in await _long_runs(view, turns, most=2 * max_images + 16):
        if start < done:
            continue
        rest += (view[done:start], b'{"":%d}' % len(cut))
        left += start - done
        is_list = view[start] == ord("[")
        cut.append(view[start:end] if is_list else view[start + 1 : end - 1])
        done = end
    rest.append(view[done:])
    left += len(view) - done
    if left > max_rest:
        raise ImageTooLarge(
            f"{what} has {left:,} bytes beside its base64 strings and its lists of numbers, over "
            f"the limit of {max_rest:,}: send fewer images at a time, or as binary data"
        )
    return LongJson(b"".join(rest), cut)


async def read_numbers(
    listed: memoryview, dtype: np.dtype[Any], what: str, turns: Turns
) -> NDArray[Any]:
    """The numbers of a list, flat or nested, as an array of its shape.

    Args:
        listed: the list's text, with its brackets.
        what: the name of the list in errors.

    Raises:
        InvalidRequest: ragged lists, or an item that `numbers` refuses.
    """
    array = np.empty(len(listed) // 2 + 1, dtype)  # pages that are not filled cost nothing
    skeleton = bytearray()
    start, end, filled = 0, len(listed), 0
    while start < end:
        piece = bytes(listed[start : start + _PIECE_BYTES])
        if start + len(piece) < end:
            piece = piece[: piece.rfind(b",")]
            if not piece:
                raise InvalidRequest(f"{what} has a number of more than {_PIECE_BYTES:,} digits")
        marks = piece.translate(_DIGITS_ALIKE, _SPACE)
        if start:
            marks = b"," + marks
        if any(pair in marks for pair in _MISPLACED):
            raise InvalidRequest(f"{what} is not valid: lists of numbers of the same lengths")
        skeleton += marks.translate(None, b"0")
        values = decode_json(b"[%b]" % piece.translate(_FLAT), list[Any], what)
        array[filled : filled + len(values)] = numbers(values, dtype, what)
        filled, start = filled + len(values), start + len(piece) + 1
        await turns.next()
    shape = await asyncio.to_thread(_shape, skeleton)  # of a large list, 10 ms
    if shape is None or start != end + 1:
        raise InvalidRequest(f"{what} is ragged: its lists have different lengths")
    return array[:filled].reshape(shape)


async def read_base64(text: memoryview, what: str, turns: Turns, *, limit: int) -> memoryview:
    """The bytes of a base64 string, with or without its padding.

    Raises:
        InvalidRequest: it is not base64.
        ImageTooLarge: more than `limit` bytes.
    """
    out = bytearray()
    pending = b""
    for start in range(0, len(text), _PIECE_BYTES):
        pending += bytes(text[start : start + _PIECE_BYTES])
        whole = start + _PIECE_BYTES >= len(text)
        keep = 0 if whole or not pending.endswith(b"\\") else 1
        pending = pending.replace(b"\\/", b"/")  # as some encoders of JSON write a slash
        used = len(pending) if whole else (len(pending) - keep) & ~3
        piece, pending = pending[:used], pending[used:]
        piece += b"=" * (-len(piece) % 4)
        try:
            if b"=" in piece and not whole:
                raise ValueError("padding before the end")
            out += binascii.a2b_base64(piece, strict_mode=True)
        except ValueError as error:  # other characters among them
            raise InvalidRequest(f"{what} is not base64: {error}") from error
        if len(out) > limit:
            raise ImageTooLarge(f"{what} has more than {limit:,} bytes: send a smaller image")
        await turns.next()
    return memoryview(out)


async def _long_runs(text: memoryview, turns: Turns, *, most: int) -> list[tuple[int, int]]:
    """Where long lists of numbers, with brackets, and base64 strings, with quotes, are."""
    found: list[tuple[int, int]] = []
    tables = (_ENDS_LIST, _ENDS_STRING)
    places = (_list_in, _string_in)
    last = [-1, -1]
    for start in range(0, len(text) + 1, _PIECE_BYTES):
        piece = bytes(text[start : start + _PIECE_BYTES])
        for i, table in enumerate(tables):
            ends = np.flatnonzero(np.frombuffer(piece.translate(table), np.uint8))
            edges = np.concatenate(([last[i]], ends + start))
            if start + len(piece) == len(text):
                edges = np.append(edges, len(text))
            for each in np.flatnonzero(np.diff(edges) > _MIN_BYTES).tolist():
                place = places[i](text, int(edges[each]) + 1, int(edges[each + 1]))
                if place is not None:
                    found.append(place)
            last[i] = int(edges[-1])
        if len(found) > most:
            raise ImageTooLarge(
                f"the request has more than {most} lists and strings: send fewer images at a time"
            )
        await turns.next()
    return sorted(found)


def _list_in(text: memoryview, start: int, end: int) -> tuple[int, int] | None:
    """The list whose characters are within `text[start:end]`, if it is whole there."""
    head = _OPENING.match(bytes(text[start : start + _MIN_BYTES]))
    tail_at = max(start, end - _MIN_BYTES)
    tail = bytes(text[tail_at:end])
    closed = tail.rstrip(b"," + _SPACE)  # an expression would take a square of its length
    ending = closed[len(closed.rstrip(b"]" + _SPACE)) :].lstrip(_SPACE)
    if head is None or not ending:
        return None
    opening = [place for place, each in enumerate(head[0]) if each == ord("[")]
    closing = [place for place, each in enumerate(ending) if each == ord("]")]
    axes = min(len(opening), len(closing))  # other brackets are of a list that has other items, too
    if axes > _MAX_AXES:
        return None
    begin, after = (
        start + opening[-axes],
        tail_at + len(closed) - len(ending) + closing[axes - 1] + 1,
    )
    if end < len(text) and text[end] == ord('"') and b"," not in tail[len(closed) :]:
        return None  # within a string: a list is not followed by a quote
    return begin, after


def _string_in(text: memoryview, start: int, end: int) -> tuple[int, int] | None:
    """The string whose characters are `text[start:end]`, if there are quotes around it."""
    quoted = start and end < len(text) and text[start - 1] == text[end] == ord('"')
    if not quoted or text[end - 1] == ord("\\"):
        return None
    return start - 1, end + 1


def _shape(skeleton: bytearray) -> tuple[int, ...] | None:
    """The shape of nested lists, of which brackets and commas are left; None if it is ragged."""
    axes = len(skeleton) - len(skeleton.lstrip(b"["))
    shape: list[int] = []
    item = bytearray()
    for axis in range(1, axes + 1):
        begin = axes - axis
        end = skeleton.find(b"]" * axis, begin) + axis  # where the first list of this axis ends
        inner = skeleton[begin + 1 : end - 1]
        count = (len(inner) + 1) // (len(item) + 1)
        if end < axis or inner != ((item + b",") * count)[:-1]:
            return None
        shape.append(count)
        item = skeleton[begin:end]
    return tuple(reversed(shape)) if len(item) == len(skeleton) > 0 else None
