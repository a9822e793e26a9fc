"""Long lists of numbers in JSON, read without blocking the event loop.

Decoding JSON holds Python's lock until it is done, so that a thread would not help: three million
numbers (33 MB) take 0.5 s in any thread. So a flat list is cut out of the text by its brackets
alone, and decoded in pieces of some 3 ms, with a turn of the event loop after each.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.tensors import decode_json, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EMPTY", "LONG_BYTES", "cut_out", "read_flat"]

# The least length of a long list, and the length of a piece: about 3 ms of numbers.
LONG_BYTES: Final = 1 << 18
EMPTY: Final = b"[]"
_DATA: Final = re.compile(rb'(?<!\\)"data"\s*:\s*\[')


def cut_out(text: bytes) -> tuple[bytes, memoryview | None]:
    """Cut a long flat list `data` out of JSON.

    The list is whatever stands between two brackets without brackets of its own; `read_flat` checks
    it.

    Returns:
        The JSON with `EMPTY` in place of the list, and the list; without one, `text` and None.
    """
    if len(text) < LONG_BYTES or (found := _DATA.search(text)) is None:
        return text, None
    start, end = found.end(), text.find(b"]", found.end())
    if end - start < LONG_BYTES or text.find(b"[", start, end) >= 0:
        return text, None
    return text[:start] + text[end:], memoryview(text)[start - 1 : end + 1]


async def read_flat(
    listed: memoryview, dtype: np.dtype[Any], count: int, what: str
) -> NDArray[Any]:
    """The numbers of a flat list, as an array `[count]`.

    Args:
        listed: the list's text, with its brackets.
        what: the name of the list in errors.

    Raises:
        InvalidRequest: another number of items, or an item that `numbers` refuses.
    """
    array = np.empty(min(count, len(listed)), dtype)
    start, end, filled = 1, len(listed) - 1, 0
    while start < end:
        piece = bytes(listed[start : min(start + LONG_BYTES, end)])
        if start + len(piece) < end:
            piece = piece[: piece.rfind(b",")]
        values = decode_json(b"[%b]" % piece, list[Any], what)
        after = filled + len(values)
        if not values or after > count:
            break
        array[filled:after] = numbers(values, dtype, what)
        filled, start = after, start + len(piece) + 1
        await asyncio.sleep(0)
    if filled != count or start != end + 1:
        raise InvalidRequest(f"{what} does not have the {count:,} numbers of its shape")
    return array
