"""The first directory of a TIFF (TIFF 6.0, section 2; BigTIFF has numbers of 8 bytes instead)."""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec

from fingerpost.client.images.decoding.structure.jpeg import MAX_PASSES, MAX_SCANS
from fingerpost.errors import BrokenImage, ImageTooLarge

__all__ = ["check_tiff"]

# Pillow and libtiff read lists of numbers one by one. A strip for each row and channel is as much.
_MAX_PIECES: Final = 1 << 17
# How often each byte may be used. Some writers store equal tiles once; libtiff may go through all
# bytes of each, if only to turn their bits.
_MAX_SHARED: Final = 16
# Tiles at the right and lower edge are decoded whole: 5 % more for 64 megapixels in tiles of 512.
_MAX_PADDING: Final = 1.25

_BYTES: Final = frozenset((1, 2, 6, 7))  # numbers of a byte, and text
_CODES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
                 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_STRIPS, _TILES = (273, 279), (324, 325)  # where they are, and how long
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_JPEG: Final = frozenset((6, 7))
_SOS: Final = re.compile(rb"\xff\xda")


class _Directory(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of a directory by their tags: type, count, and where the values are."""

    data: bytes
    order: str
    entries: dict[int, tuple[int, int, int]]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """An entry's values; none if it is missing, cut off, too long, or not of whole numbers."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        if count > _MAX_PIECES:
            return ()
        try:
            return struct.unpack_from(f"{self.order}{count}{_CODES[kind]}", self.data, at)
        except (KeyError, struct.error):
            return ()

    def number(self, tag: int, default: int = 0) -> int:
        """The first of an entry's values."""
        return next(iter(self.numbers(tag)), default)


def check_tiff(data: bytes, max_pixels: int) -> None:
    """Refuse a TIFF whose lists, tiles, shared bytes or scans multiply work.

    Raises:
        BrokenImage, ImageTooLarge: see `check_structure`.
    """
    try:
        found = _directory(data)
    except (struct.error, OverflowError):
        return  # cut off: left to the decoder
    width, height = found.number(_WIDTH), found.number(_HEIGHT)
    tiled = _TILE_WIDTH in found.entries
    if tiled:
        _check_tiles(found, width, height, max_pixels)
    places, lengths = (found.numbers(tag) for tag in (_TILES if tiled else _STRIPS))
    if len(lengths) > 1 and sum(lengths) > _MAX_SHARED * len(data):
        raise BrokenImage(
            f"the image's {len(lengths):,} pieces have {sum(lengths):,} bytes in a file of "
            f"{len(data):,}: encode it anew"
        )
    if found.number(_COMPRESSION) in _JPEG and 0 < width * height <= max_pixels:
        allowed = min(MAX_SCANS, MAX_PASSES * max_pixels // (width * height))
        for at, length in zip(places, lengths, strict=False):
            scans = _SOS.findall(data, at, at + length) if at < len(data) else ()
            if len(scans) > allowed:
                raise ImageTooLarge(
                    f"the image has more than {allowed} JPEG scans in one piece: encode it anew"
                )


def _directory(data: bytes) -> _Directory:
    """The first directory.

    Raises:
        BrokenImage: tags twice, or lists that are too long.
        struct.error, OverflowError: it is cut off.
    """
    order = "<" if data[0] == ord("I") else ">"
    big = 43 in data[2:4]
    head = struct.Struct(order + ("Q" if big else "I"))
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    (at,) = head.unpack_from(data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    entries: dict[int, tuple[int, int, int]] = {}
    total = 0
    for number in range(min(count, 1 << 16)):
        here = at + number * entry.size
        tag, kind, values, offset = entry.unpack_from(data, here)
        if tag in entries:  # libtiff would take the first, Pillow the last
            raise BrokenImage(f"the image has tag {tag} twice: encode it anew")
        if kind not in _BYTES and values > _MAX_PIECES:
            raise BrokenImage(
                f"the image is in {values:,} pieces, more than {_MAX_PIECES:,}: "
                "encode it anew, in larger ones"
            )
        size = values * _SIZES.get(kind, 0)
        if size <= head.size:
            offset = here + entry.size - head.size  # the value itself is there
        elif offset + size <= len(data):
            total += size
        entries[tag] = (kind, values, offset)
    if total > _MAX_SHARED * len(data):
        raise BrokenImage(
            f"the image's metadata has {total:,} bytes in a file of {len(data):,}: encode it anew"
        )
    return _Directory(data=data, order=order, entries=entries)


def _check_tiles(found: _Directory, width: int, height: int, max_pixels: int) -> None:
    """A tile is decoded whole, even where the image is smaller."""
    across, down = found.number(_TILE_WIDTH), found.number(_TILE_HEIGHT)
    if across < 1 or down < 1:
        raise BrokenImage(f"the image's tiles are {across} x {down} pixels: encode it anew")
    pixels = -(-width // across) * across * -(-height // down) * down
    if pixels > _MAX_PADDING * max_pixels:
        raise ImageTooLarge(
            f"the image is {width} x {height} in tiles of {across} x {down}, decoding it takes "
            f"{pixels / 1e6:.0f} megapixels, over the limit of {max_pixels / 1e6:.0f}: "
            "send a smaller one"
        )
