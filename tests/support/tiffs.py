"""TIFFs that name the same bytes again and again, and TIFFs in more pieces than anyone writes."""

from __future__ import annotations

import lzma
import struct
import zlib

from PIL import Image

from tests.support.pictures import save, tiff, zeros

__all__ = ["piecewise", "strips", "tiff_entries", "tiles", "turned", "xz"]


def strips(
    count: int,
    compression: int,
    data: bytes,
    *,
    size: tuple[int, int],
    fill_order: int = 1,
    bits: int = 8,
    samples: int = 1,
    apart: bool = False,
) -> bytes:
    """A TIFF in gray, RGB or RGBA whose strips are all the same bytes of the file.

    With `apart` each has a copy of its own.
    """
    start = 8 + 2 + 12 * (11 if samples == 4 else 10) + 4
    depths = struct.pack("<HHHH", bits, bits, bits, bits if samples == 4 else 0)
    at = start + len(depths) + 8 * count
    places, lengths = start + len(depths), start + len(depths) + 4 * count
    entries = [
        (256, 4, 1, size[0]),
        (257, 4, 1, size[1]),
        (258, 3, samples, bits if samples == 1 else start),
        (259, 3, 1, compression),
        (262, 3, 1, 1 if samples == 1 else 2),
        (266, 3, 1, fill_order),
        (273, 4, count, at if count == 1 else places),
        (277, 3, 1, samples),
        (278, 4, 1, -(-size[1] // count)),
        (279, 4, count, len(data) if count == 1 else lengths),
        *[(338, 3, 1, 2)] * (samples == 4),  # the fourth is alpha
    ]
    step = len(data) if apart else 0
    lists = struct.pack(f"<{count}I", *(at + step * n for n in range(count)))
    lists += struct.pack("<I", len(data)) * count
    return tiff(entries, depths + lists + data * (count if apart else 1))


def turned(data: bytes) -> bytes:
    """The bits of each byte the other way round."""
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def xz(data: bytes) -> bytes:
    """Data in xz that claims to need a dictionary of 1.5 GB (its format, 3.1 and 5.3.1)."""
    made = lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}])
    header = made[12:16] + b"\x25" + made[17:20]
    return made[:12] + header + zlib.crc32(header).to_bytes(4, "little") + made[24:]


def piecewise(compression: str, count: int) -> bytes:
    """Real strips of a row each, as many as a TIFF may have for its pixels."""
    return save(Image.new("RGB", (16, count)), "TIFF", compression=compression, tiffinfo={278: 1})


def tiles(width: int, height: int, across: int, down: int) -> bytes:
    """A gray TIFF in tiles, all the same bytes of the file."""
    count = -(-width // across) * -(-height // down)
    data = zeros(across * down)
    start = 8 + 2 + 12 * 10 + 4
    at = start + 8 * count
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, across),
        (323, 4, 1, down),
        (324, 4, count, start),
        (325, 4, count, start + 4 * count),
    ]
    lists = struct.pack("<I", at) * count + struct.pack("<I", len(data)) * count
    return tiff(entries, lists + data)


def tiff_entries(count: int, size: int) -> bytes:
    base = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 16)]  # fmt: skip
    more = [(1000 + n, 7, size, 8) for n in range(count)]
    return tiff(sorted(base + more), bytes(size))
