"""PNG and TIFF files written sample by sample, with a library for neither."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from tests.support.pictures import png_chunk

__all__ = ["CHANNELS", "SIGNATURE", "packed", "png", "tiff_of", "without_chunk"]

Samples = NDArray[np.integer]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Samples of a pixel by a PNG's colour type.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I"}


def packed(row: Samples, bits: int, order: str = ">") -> bytes:
    """A row of samples, the first in the highest bits; 16 bits in the byte order."""
    if bits == 16:
        return row.astype(f"{order}u2").tobytes()
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((row.reshape(-1, 1) >> places) & 1).tobytes()


def png(
    samples: Samples,
    depth: int,
    colour: int,
    *,
    before: Iterable[tuple[bytes, bytes]] = (),
    after: Iterable[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
    idat_bytes: int = 1 << 20,
) -> bytes:
    """A PNG of `samples` `[height, width, channels]`, each of `depth` bits, unfiltered.

    Args:
        samples: the samples as they stand in the file.
        depth: bits of each.
        colour: the colour type.
        before, after: chunks before and behind the pixels.
        interlaced: in the seven passes of Adam7.
        idat_bytes: bytes of the pixels' chunks.
    """
    height, width = samples.shape[:2]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [samples[y::down, x::across] for y, x, down, across in passes]
    rows = b"".join(
        b"\0" + packed(row.reshape(-1), depth) for part in parts if part.size for row in part
    )
    data = zlib.compress(rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pieces = [data[at : at + idat_bytes] for at in range(0, len(data), idat_bytes)]
    chunks = [(b"IHDR", header), *before, *((b"IDAT", piece) for piece in pieces), *after]
    return SIGNATURE + b"".join(png_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))


def without_chunk(data: bytes, name: bytes) -> bytes:
    """The PNG without its chunks of that name."""
    at, kept = len(SIGNATURE), [SIGNATURE]
    while at < len(data):
        length, found = struct.unpack_from(">I4s", data, at)
        if found != name:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def tiff_of(
    samples: Samples,
    bits: int,
    photometric: int | None,
    *,
    order: str = "<",
    deflated: bool = False,
    more: Mapping[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """A TIFF of `samples` `[height, width, channels]` in one strip.

    Args:
        samples: the samples as they stand in the file.
        bits: bits of each.
        photometric: tag 262, or None to leave it out.
        order: `<` for `II`, `>` for `MM`.
        deflated: compressed, as libtiff reads it; else as Pillow itself reads it.
        more: further tags, each with its type and values.
    """
    height, width, channels = samples.shape
    data = b"".join(packed(row.reshape(-1), bits, order) for row in samples)
    if deflated:
        data = zlib.compress(data)
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [8 if deflated else 1]),
        273: (4, [0]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(data)]),
        **(more or {}),
    }
    if photometric is not None:
        tags[262] = (3, [photometric])
    behind = 8 + 2 + 12 * len(tags) + 4
    values = {
        tag: struct.pack(f"{order}{len(numbers)}{_FORMATS[kind]}", *numbers)
        for tag, (kind, numbers) in tags.items()
    }
    tail = b""
    entries = []
    for tag, (kind, numbers) in sorted(tags.items()):
        value = values[tag].ljust(4, b"\0")
        if len(value) > 4:
            value, tail = struct.pack(f"{order}I", behind + len(tail)), tail + value
        entries.append((tag, kind, len(numbers), value))
    start = struct.pack(f"{order}I", behind + len(tail))
    body = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + (start if tag == 273 else value)
        for tag, kind, count, value in entries
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + body + struct.pack(f"{order}I", 0) + tail + data
