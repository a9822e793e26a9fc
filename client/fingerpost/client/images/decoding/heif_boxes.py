"""Where the coded pictures of an AVIF or HEIC lie in the file.

Their places are read from the boxes (ISO/IEC 14496-12, 8.11.3, 8.11.6 and 8.7).
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Final

from fingerpost.errors import BrokenImage, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_FRAMES", "MAX_ITEMS", "boxes_in", "check_frames_of"]

# A progressive AVIF has up to 4 layers, each a frame.
MAX_FRAMES: Final = 8
# Tiles of a large picture, metadata, thumbnails; boxes beside them; references to tiles.
MAX_ITEMS: Final = 4096
_CONTAINERS: Final = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"meta": 4}
# The type of an item that is a coded picture.
_CODED: Final = {"AVIF": b"av01", "HEIC": b"hvc1"}


def check_frames_of(form: str, data: bytes, frames: Callable[[bytes, int, int], int]) -> None:
    """Refuse a file that has more frames decoded than a picture has.

    Args:
        form: `AVIF` or `HEIC`.
        data: the file.
        frames: counts the frames in the data of one coded picture, which has a start and a size.

    Raises:
        UnsupportedImage: more frames, or data that lies where it is not looked for.
        BrokenImage: the boxes are damaged.
    """
    try:
        boxes = list(islice(boxes_in(form, data, 0, len(data)), MAX_ITEMS + 1))
        if len(boxes) > MAX_ITEMS:
            raise BrokenImage(f"the {form} has too many boxes: encode it anew")
        places = [*_of_items(form, data, boxes), *_of_samples(data, boxes)]
        counts = [frames(data, start, size) for start, size in places]
    except (struct.error, IndexError, OverflowError) as error:
        raise BrokenImage(
            f"the {form}'s boxes are damaged or incomplete: send all of it"
        ) from error
    if not counts:
        raise BrokenImage(f"the {form} has no picture in it")
    if max(counts) > MAX_FRAMES:
        raise UnsupportedImage(
            f"a picture of the {form} has {max(counts):,} frames, more than {MAX_FRAMES}: encode "
            "it anew"
        )


def boxes_in(
    form: str, data: bytes, at: int, end: int, depth: int = 0
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each box's contents, those within containers as well."""
    count = 0
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else at + size
        count += 1
        if stop < start or count > MAX_ITEMS:
            raise BrokenImage(f"the {form}'s boxes are damaged, or too many: encode it anew")
        yield name, start, min(stop, end)
        if name in _CONTAINERS and depth < len(_CONTAINERS):
            yield from boxes_in(form, data, start + _CONTAINERS[name], min(stop, end), depth + 1)
        at = stop


def _of_items(
    form: str, data: bytes, boxes: list[tuple[bytes, int, int]]
) -> Iterator[tuple[int, int]]:
    """Start and size of the data of each item that is a coded picture."""
    pictures = set()
    names = [name for name, _, _ in boxes]
    if names.count(b"iinf") > 1 or names.count(b"iloc") > 1:
        raise BrokenImage(f"the {form} lists its items twice: encode it anew")
    for name, start, end in boxes:
        if name == b"iinf":
            head = start + (6 if data[start] == 0 else 8)
            for inner, at, _ in boxes_in(form, data, head, end):
                if inner == b"infe":
                    layout = ">H2x4s" if data[at] < 3 else ">I2x4s"
                    item, kind = struct.unpack_from(layout, data, at + 4)
                    if kind == _CODED[form]:
                        pictures.add(item)
    for name, start, _ in boxes:
        if name == b"iloc":
            for item, method, place, size in _locations(form, data, start):
                if item not in pictures:
                    continue
                if method == 0:
                    yield place, size
                    continue
                for inner, at, _ in boxes:
                    if inner == b"idat" and method == 1:
                        yield at + place, size
                        break
                else:
                    raise UnsupportedImage(f"the {form}'s data is made of other items' data")


def _locations(form: str, data: bytes, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Item, construction method, start and size of each item in an `iloc` box."""
    version, widths, more = data[at], data[at + 4], data[at + 5]
    offset, length, base = widths >> 4, widths & 15, more >> 4
    index = more & 15 if version in (1, 2) else 0
    at += 6

    def number(width: int) -> int:
        nonlocal at
        if at + width > len(data):
            raise IndexError("the box ends too soon")
        at += width
        return int.from_bytes(data[at - width : at], "big")

    wide = 4 if version == 2 else 2
    items = number(wide)
    if items > MAX_ITEMS:
        raise BrokenImage(f"the {form} has {items:,} items: encode it anew")
    for _ in range(items):
        item = number(wide)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)
        begin = number(base)
        extents = number(2)
        if extents != 1:
            raise UnsupportedImage(f"an item of the {form} is in several pieces: encode it anew")
        number(index)
        place = begin + number(offset)
        size = number(length)
        yield item, method, place, size or len(data)


def _of_samples(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[tuple[int, int]]:
    """Start and size of the first sample of each track: of a sequence only that is decoded."""
    offsets, sizes = [], []
    for name, start, _ in boxes:
        if name in (b"stco", b"co64"):
            layout = ">I" if name == b"stco" else ">Q"
            offsets.append(struct.unpack_from(layout, data, start + 8)[0])
        elif name == b"stsz":
            same, _, first = struct.unpack_from(">III", data, start + 4)
            sizes.append(same or first)
    yield from zip(offsets, sizes, strict=False)
