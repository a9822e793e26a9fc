"""How many pixels the decoder of a HEIC goes over for the picture that it shows.

A picture may be made of others: a grid of tiles, pictures laid over another (ISO/IEC 23008-12,
6.6.2). The same tile may stand in it 256 times, and be of 64 megapixels although the picture has
one: 1.5 KB take the decoder a minute and a half. The decoder refuses a tile that is larger than the
size that the file says, so these sizes are a bound.

An AVIF needs no such check: its decoder refuses tiles that a grid does not need.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Final

from fingerpost.client.images.decoding.heif_boxes import MAX_ITEMS, boxes_in
from fingerpost.errors import BrokenImage, ImageTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_tiles"]

_MAX_DEPTH: Final = 8


def check_tiles(data: bytes, max_pixels: int) -> None:
    """Refuse a HEIC whose pictures are made of more than so many pixels of others.

    Raises:
        BrokenImage: more pieces than any real image has, or ones that are made of themselves.
        ImageTooLarge: more pixels.
    """
    try:
        boxes = list(islice(boxes_in("HEIC", data, 0, len(data)), MAX_ITEMS + 1))
        parts = dict(_parts(data, boxes))
        if not parts:
            return
        sizes = _sizes(data, boxes)
    except (struct.error, IndexError):
        return  # damage is told when the file is opened
    known: dict[int, int] = {}
    for item in parts:
        pixels = _pixels(item, parts, sizes, known, 0)
        if pixels > max_pixels:
            raise ImageTooLarge(
                f"the HEIC is made of tiles with {pixels / 1e6:.0f} megapixels in all, over the "
                f"limit of {max_pixels / 1e6:.0f}: send a smaller one"
            )


def _pixels(
    item: int,
    parts: dict[int, tuple[int, ...]],
    sizes: dict[int, int],
    known: dict[int, int],
    depth: int,
) -> int:
    if item not in parts:
        return sizes.get(item, 0)
    if depth > _MAX_DEPTH:
        raise BrokenImage("the HEIC's pictures are made of each other too often: encode it anew")
    if item not in known:
        each = (_pixels(part, parts, sizes, known, depth + 1) for part in parts[item])
        known[item] = sum(each)
    return known[item]


def _parts(
    data: bytes, boxes: list[tuple[bytes, int, int]]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The items that are made of others, each with those."""
    total = 0
    for name, start, end in boxes:
        if name != b"iref":
            continue
        letter, width = ("H", 2) if data[start] == 0 else ("I", 4)
        for kind, at, _ in boxes_in("HEIC", data, start + 4, end):
            item, count = struct.unpack_from(f">{letter}H", data, at)
            total += count
            if total > MAX_ITEMS:
                raise BrokenImage(
                    f"the HEIC has more than {MAX_ITEMS:,} references: encode it anew"
                )
            if kind == b"dimg":
                yield item, struct.unpack_from(f">{count}{letter}", data, at + width + 2)


def _sizes(data: bytes, boxes: list[tuple[bytes, int, int]]) -> dict[int, int]:
    """The pixels of each item, of which its properties say width and height."""
    found: dict[int, int] = {}
    for name, start, end in boxes:
        if name != b"iprp":
            continue
        inner = list(boxes_in("HEIC", data, start, end))
        properties = [
            each
            for box, at, stop in inner
            if box == b"ipco"
            for each in boxes_in("HEIC", data, at, stop)
        ]
        pixels = [_area(data, at) if box == b"ispe" else 0 for box, at, _ in properties]
        for box, at, _ in inner:
            if box == b"ipma":
                for item, index in _associations(data, at):
                    if 0 < index <= len(pixels):
                        found[item] = max(found.get(item, 0), pixels[index - 1])
    return found


def _area(data: bytes, at: int) -> int:
    width, height = struct.unpack_from(">II", data, at + 4)
    return int(width * height)


def _associations(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Each item with the number of one of its properties."""
    version, wide = data[at], data[at + 3] & 1
    (entries,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(entries, MAX_ITEMS)):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        at += 1
        for _ in range(count):
            number = struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            yield item, number
            at += 2 if wide else 1
