"""How many AV1 frames an AVIF has its decoder go through.

A frame that is never shown takes some hundred bytes, and as long as a picture: 20 MB of them could
take hours. The places of a picture's data are read from its boxes (ISO/IEC 14496-12, 8.11.3, 8.11.6
and 8.7), the frames in it are counted by their OBUs (AV1 specification, 5.3).
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Final

from fingerpost.errors import BrokenImage, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_frames"]

# A progressive AVIF has up to 4 layers, each a frame.
_MAX_FRAMES: Final = 8
# OBUs of a picture: a delimiter, a sequence header, metadata, groups of tiles.
_MAX_OBUS: Final = 1024
# Tiles of a large picture, metadata, thumbnails; boxes beside them.
_MAX_ITEMS: Final = 4096
_CONTAINERS: Final = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"meta": 4}
_FRAMES: Final = frozenset({3, 6})  # OBU_FRAME_HEADER, OBU_FRAME


def check_frames(data: bytes) -> None:
    """Refuse an AVIF that has more frames decoded than a picture has.

    Raises:
        UnsupportedImage: more frames, or data that lies where it is not looked for.
        BrokenImage: the boxes are damaged.
    """
    try:
        boxes = list(islice(_boxes(data, 0, len(data)), _MAX_ITEMS + 1))
        if len(boxes) > _MAX_ITEMS:
            raise BrokenImage("the AVIF has too many boxes: encode it anew")
        places = [*_of_items(data, boxes), *_of_samples(data, boxes)]
        counts = [_frames(data, start, size) for start, size in places]
    except (struct.error, IndexError, OverflowError) as error:
        raise BrokenImage("the AVIF's boxes are damaged or incomplete: send all of it") from error
    if not counts:
        raise BrokenImage("the AVIF has no picture in it")
    if max(counts) > _MAX_FRAMES:
        raise UnsupportedImage(
            f"a picture of the AVIF has {max(counts):,} frames, more than {_MAX_FRAMES}: encode it "
            "anew"
        )


def _boxes(data: bytes, at: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
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
        if stop < start or count > _MAX_ITEMS:
            raise BrokenImage("the AVIF's boxes are damaged, or too many: encode it anew")
        yield name, start, min(stop, end)
        if name in _CONTAINERS and depth < len(_CONTAINERS):
            yield from _boxes(data, start + _CONTAINERS[name], min(stop, end), depth + 1)
        at = stop


def _of_items(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[tuple[int, int]]:
    """Start and size of the data of each item of AV1."""
    pictures = set()
    names = [name for name, _, _ in boxes]
    if names.count(b"iinf") > 1 or names.count(b"iloc") > 1:
        raise BrokenImage("the AVIF lists its items twice: encode it anew")
    for name, start, end in boxes:
        if name == b"iinf":
            head = start + (6 if data[start] == 0 else 8)
            for inner, at, _ in _boxes(data, head, end):
                if inner == b"infe":
                    form = ">H2x4s" if data[at] < 3 else ">I2x4s"
                    item, kind = struct.unpack_from(form, data, at + 4)
                    if kind == b"av01":
                        pictures.add(item)
    for name, start, _ in boxes:
        if name == b"iloc":
            for item, method, place, size in _locations(data, start):
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
                    raise UnsupportedImage("the AVIF's data is made of other items' data")


def _locations(data: bytes, at: int) -> Iterator[tuple[int, int, int, int]]:
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
    if items > _MAX_ITEMS:
        raise BrokenImage(f"the AVIF has {items:,} items: encode it anew")
    for _ in range(items):
        item = number(wide)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)
        begin = number(base)
        extents = number(2)
        if extents != 1:
            raise UnsupportedImage("an item of the AVIF is in several pieces: encode it anew")
        number(index)
        place = begin + number(offset)
        size = number(length)
        yield item, method, place, size or len(data)


def _of_samples(data: bytes, boxes: list[tuple[bytes, int, int]]) -> Iterator[tuple[int, int]]:
    """Start and size of the first sample of each track: of a sequence only that is decoded."""
    offsets, sizes = [], []
    for name, start, _ in boxes:
        if name in (b"stco", b"co64"):
            form = ">I" if name == b"stco" else ">Q"
            offsets.append(struct.unpack_from(form, data, start + 8)[0])
        elif name == b"stsz":
            same, _, first = struct.unpack_from(">III", data, start + 4)
            sizes.append(same or first)
    yield from zip(offsets, sizes, strict=False)


def _frames(data: bytes, at: int, size: int) -> int:
    """The frames among the OBUs of a picture."""
    end, frames = min(at + size, len(data)), 0
    for _ in range(_MAX_OBUS):
        if at >= end or frames > _MAX_FRAMES:
            return frames
        header = data[at]
        frames += (header >> 3 & 15) in _FRAMES
        at += 2 if header & 4 else 1
        if not header & 2:  # goes on to the end
            return frames
        length = 0
        for place in range(8):
            byte = data[at]
            length |= (byte & 127) << 7 * place
            at += 1
            if byte < 128:
                break
        at += length
    raise UnsupportedImage(f"a picture of the AVIF is in more than {_MAX_OBUS:,} pieces")
