"""Small images that ask a decoder for as much work as their format allows: one for each way.

`HOSTILE` has a function for each, so that they are made one after the other: some have 20 MB.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Final

from PIL import Image

from fingerpost.errors import BrokenImage, ImageError, ImageTooLarge, UnsupportedImage
from tests.support.pictures import after_start, photo, png_chunk, save, zeros
from tests.support.tiffs import piecewise, strips, tiff_entries, tiles, turned, xz

__all__ = ["HOSTILE", "REFUSED", "SIDE", "TEXT", "bare", "bmp_rle", "jpeg", "png", "refinements",
           "scan", "segment", "sequential"]  # fmt: skip

# 64 megapixels and 20 MB are what a worker takes by default.
SIDE: Final = 8000
BYTES: Final = 19_900_000


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


@cache
def tables() -> bytes:
    """The quantization and Huffman tables of a JPEG in colours, as Pillow writes them."""
    data = save(photo(), "JPEG")
    found, at = b"", 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in (0xDB, 0xC4):
            found += data[at:end]
        at = end
    return found


def jpeg(
    scans: bytes,
    *,
    frame: int = 0xC0,
    size: tuple[int, int] = (SIDE, SIDE),
    components: int = 3,
    before: bytes = b"",
) -> bytes:
    """A JPEG of any size with the given scans; `frame` is its SOF marker (ITU T.81, table B.1)."""
    head = struct.pack(">BHHB", 8, size[1], size[0], components)
    head += b"".join(bytes((1 + number, 0x11, min(number, 1))) for number in range(components))
    return b"\xff\xd8" + tables() + before + segment(frame, head) + scans + b"\xff\xd9"


def scan(component: int, spectral: tuple[int, int, int] = (0, 63, 0), data: bytes = b"\0") -> bytes:
    """A scan of one component; `spectral` is its first and last coefficient, and its bits."""
    table = 0x00 if component == 1 else 0x11
    return segment(0xDA, bytes((1, component, table, *spectral))) + data


def sequential(count: int, **rest: object) -> bytes:
    return jpeg(b"".join(scan(1 + n % 3) for n in range(count)), **rest)  # type: ignore[arg-type]


def _end_of_bands(count: int) -> bytes:
    """A Huffman table with one code, of 32,767 blocks without a change; and `count` of it."""
    # One code of one bit: 0xE0, which is EOB14: 14 bits follow.
    table = segment(0xC4, bytes((0x10, 1)) + bytes(15) + b"\xe0")
    bits = "0" + "1" * 14
    text = bits * count
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    return table + scan(1, (1, 63, 0x10), data)


def refinements(count: int, side: int = SIDE) -> bytes:
    """A progressive JPEG whose scans each look at all coefficients of all blocks."""
    one = _end_of_bands((side // 8) ** 2 // 32_767 + 1)
    first = segment(0xDA, bytes((3, 1, 0, 2, 0x11, 3, 0x11, 0, 0, 0))) + b"\0"
    return jpeg(first + one * count, frame=0xC2, size=(side, side))


def restarts(count: int, size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    return sequential(count, size=size, before=segment(0xDD, b"\0\1"))


def bare(*segments: tuple[int, bytes]) -> bytes:
    return after_start(save(photo(), "JPEG"), *segments)


def exif_entries(count: int, size: int, *, big: bool = False) -> bytes:
    """An EXIF directory whose entries all claim the same `size` bytes."""
    if big:
        head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count)
        return head + b"".join(struct.pack("<HHQQ", n & 0xFFFF, 7, size, 0) for n in range(count))
    head = b"II*\0" + struct.pack("<IH", 8, count)
    return head + b"".join(struct.pack("<HHII", n & 0xFFFF, 7, size, 0) for n in range(count))


def png(*extra: bytes, size: tuple[int, int] = (4, 4), depth: int = 8, kind: int = 0,
        interlace: int = 0, data: bytes | None = None) -> bytes:  # fmt: skip
    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, interlace)
    pixels = png_chunk(b"IDAT", zeros(1000) if data is None else data)
    parts = (png_chunk(b"IHDR", header), *extra, pixels, png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def paeth_rows(row_bytes: int, rows: int) -> bytes:
    """Rows of zeros with the dearest filter, compressed."""
    row = b"\x04" + bytes(row_bytes)
    made = zlib.compressobj(1)
    block = row * 100
    return b"".join(made.compress(block) for _ in range(rows // 100)) + made.flush()


def gif(extensions: bytes = b"", size: tuple[int, int] = (8, 8)) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    image = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\x00"
    return head + extensions + image + b";"


def bmp_rle(data: bytes, size: tuple[int, int] = (SIDE, SIDE), kind: int = 1) -> bytes:
    start = 14 + 40 + 1024
    bits = 8 if kind == 1 else 4
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(data), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, kind, len(data), 0, 0, 256, 0)
        + bytes(1024)
        + data
    )


def webp_chunks(name: bytes, count: int) -> bytes:
    made = save(
        Image.new("RGB", (8, 8)), "WEBP", lossless=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"
    )
    body = made[8:] + (name + bytes(4)) * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frames(count: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    made = save(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    at = made.index(b"ANMF")
    end = made.index(b"ANMF", at + 4)
    body = made[8:at] + made[at:end] * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


ICC = b"icc\0\0" + zlib.compress(bytes(1_000_000), 9)
TEXT = b"k\0\0" + zlib.compress(bytes(1_000_000), 9)

HOSTILE: dict[str, Callable[[], bytes]] = {
    "jpeg: 20,000 sequential scans": lambda: sequential(20_000),
    "jpeg: 20 sequential scans": lambda: sequential(20),
    "jpeg: 2,000 sequential scans with restarts": lambda: restarts(2000),
    "jpeg: 20 sequential scans with restarts": lambda: restarts(20),
    "jpeg: 100 of 12 megapixels with restarts": lambda: restarts(100, (3500, 3500)),
    "jpeg: 100 scans of 1 megapixel": lambda: sequential(100, size=(1000, 1000)),
    "jpeg: 20,000 scans behind one of all": lambda: jpeg(
        segment(0xDA, bytes((3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0))) + b"\0" + scan(1) * 20_000
    ),
    "jpeg: 100,000 scans of a small image": lambda: sequential(100_000, size=(64, 64)),
    "jpeg: 200 refining scans": lambda: refinements(200),
    "jpeg: 18 refining scans": lambda: refinements(18),
    "jpeg: 98 refining scans of 12 megapixels": lambda: refinements(98, 3500),
    "jpeg: 60,000 refining scans of 1 megapixel": lambda: refinements(60_000, 1000),
    "jpeg: tables between its scans": lambda: jpeg(
        scan(1) + segment(0xC4, b"\0\1" + bytes(16)) * 900_000 + scan(2) * 200
    ),
    "jpeg: 5,000,000 marks for a scan": lambda: jpeg(scan(1) + b"\xff\xda" * 5_000_000),
    "jpeg: 9,000,000 restarts in its header": lambda: jpeg(scan(1), before=b"\xff\xd0" * 9_000_000),
    "jpeg: arithmetic coding": lambda: jpeg(scan(1), frame=0xC9, components=1),
    "jpeg: lossless": lambda: jpeg(scan(1, (1, 0, 0)), frame=0xC3, components=1),
    "jpeg: 20 lossless scans": lambda: jpeg(
        b"".join(scan(1 + n % 3, (1, 0, 0)) for n in range(20)), frame=0xC3
    ),
    "jpeg: what Pillow sees behind another marker": lambda: jpeg(
        scan(1), before=b"\xff\xf0" + segment(0xE1, b"Exif\0\0" + bytes(650)) * 30_000
    ),
    "jpeg: exif in 30,000 segments": lambda: bare(*[(0xE1, b"Exif\0\0" + bytes(650))] * 30_000),
    "jpeg: 43,000 segments": lambda: bare(*[(0xE5, b"")] * 43_000),
    "jpeg: 43,000 comments": lambda: bare(*[(0xFE, b"")] * 43_000),
    "jpeg: photoshop blocks": lambda: bare(
        *[(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5400)] * 300
    ),
    "jpeg: quantization tables": lambda: bare(*[(0xDB, (b"\0" + bytes(64)) * 1007)] * 300),
    "jpeg: huffman tables": lambda: bare(*[(0xC4, (b"\0\1" + bytes(16)) * 3600)] * 300),
    "jpeg: 18 MB of fill bytes": lambda: bare()[:2] + b"\xff" * 18_000_000 + bare()[2:],
    "jpeg: exif entries of 60 KB": lambda: bare(
        (0xE1, b"Exif\0\0" + exif_entries(5000, 60_000)[:65_000])
    ),
    "png: exif entries of 19 MB": lambda: png(
        png_chunk(b"eXIf", exif_entries(65_000, 19_000_000) + bytes(19_000_000)),
        data=zeros(40),
    ),
    "png: 900,000 exif entries": lambda: png(
        png_chunk(b"eXIf", exif_entries(900_000, 8, big=True))
    ),
    "png: 16,000 profiles": lambda: png(png_chunk(b"iCCP", ICC) * 16_000),
    "png: 16,000 texts": lambda: png(png_chunk(b"zTXt", TEXT) * 16_000),
    "png: 16,000 texts about its orientation": lambda: png(
        png_chunk(b"zTXt", b"Raw profile type exif" + TEXT[1:]) * 16_000
    ),
    "png: 60,000 pieces of its pixels": lambda: png(png_chunk(b"IDAT", b"") * 60_000),
    "png: 3,800,000 empty blocks": lambda: png(
        data=b"\x78\x9c" + b"\0\0\0\xff\xff" * 3_800_000 + zlib.compress(bytes(64))[2:]
    ),
    "png: a colour of 16 bits is transparent": lambda: png(
        png_chunk(b"tRNS", bytes(6)), size=(SIDE, SIDE), depth=16, kind=2
    ),
    "png: the same in 16 megapixels": lambda: png(
        png_chunk(b"tRNS", bytes(6)),
        size=(4000, 4000),
        depth=16,
        kind=2,
        data=paeth_rows(4000 * 6, 4000),
    ),
    "png: broken texts": lambda: png(png_chunk(b"zTXt", b"\0\0" + TEXT[3:]) * 16_000),
    "png: 43,000 chunks": lambda: png(png_chunk(b"prVt", b"") * 43_000),
    "png: 64 megapixels, 16 bits, rgba": lambda: png(
        size=(SIDE, SIDE), depth=16, kind=6, data=paeth_rows(SIDE * 8, SIDE)
    ),
    "png: the same, interlaced": lambda: png(
        size=(SIDE, SIDE), depth=16, kind=6, interlace=1, data=paeth_rows(SIDE * 4, 2 * SIDE)
    ),
    "gif: comments": lambda: gif(b"!\xfe" + (b"\xff" + bytes(255)) * 65_000 + b"\0"),
    "gif: extensions": lambda: gif(b"!\xf9\0" * 40_000),
    "gif: 64 megapixels": lambda: gif(size=(SIDE, SIDE)),
    "bmp: ends of lines": lambda: bmp_rle(b"\1\0\0\0" * SIDE),
    "bmp: runs of 4 bits": lambda: bmp_rle((b"\xff\x12" * 31 + b"\x5f\x12\0\0") * SIDE, kind=2),
    "bmp: absolute runs": lambda: bmp_rle(b"\0\xff" + bytes(256), kind=1),
    "tiff: entries of 300 KB": lambda: tiff_entries(60_000, 19_000_000),
    "tiff: 30,000 strips of the same 19 MB, turned": lambda: strips(
        30_000, 32773, turned(b"\xf1\0") + bytes(19_000_000), size=(16, 30_000), fill_order=2
    ),
    "tiff: 30,000 empty blocks 3,800,000 times": lambda: strips(
        30_000,
        8,
        b"\x78\x9c" + b"\0\0\0\xff\xff" * 3_700_000 + zlib.compress(bytes(16))[2:],
        size=(16, 30_000),
    ),
    "tiff: the same in one strip": lambda: strips(
        1,
        8,
        b"\x78\x9c" + b"\0\0\0\xff\xff" * 3_700_000 + zlib.compress(bytes(16))[2:],
        size=(16, 1),
    ),
    "tiff: 120,000 raw strips of the same bytes": lambda: (
        strips(120_000, 1, bytes(150), size=(150, 30_000))[:-150] + bytes(18_000_000)
    ),
    "tiff: 30,000 raw strips of the same bytes": lambda: (
        strips(30_000, 1, bytes(600), size=(600, 30_000))[:-600] + bytes(19_000_000)
    ),
    **{
        f"tiff: 30,000 strips in {name}": lambda name=name: piecewise(name, 30_000)
        for name in ("zstd", "tiff_adobe_deflate", "tiff_lzw")
    },
    "tiff: 30,000 strips in lzma": lambda: strips(30_000, 34925, xz(bytes(16)), size=(16, 30_000)),
    "tiff: 30,000 strips in jpeg": lambda: strips(
        30_000, 7, save(photo((16, 1), "L"), "JPEG"), size=(16, 30_000)
    ),
    "tiff: 30,000 strips in webp": lambda: strips(
        30_000, 50001, save(photo((16, 1)), "WEBP", lossless=True), size=(16, 30_000), samples=3
    ),
    **{
        f"tiff: 64 megapixels in {name}": lambda name=name: save(
            Image.new("RGBA" if name != "jpeg" else "RGB", (SIDE, SIDE)), "TIFF", compression=name
        )
        for name in ("jpeg", "zstd", "tiff_lzw", "packbits")
    },
    # To compress all of it takes these many seconds; of 64 rows they take copies.
    **{
        f"tiff: 64 megapixels in {name}": lambda kind=kind, made=made: strips(
            SIDE // 64, kind, made(64 * SIDE * 4), size=(SIDE, SIDE), samples=4, apart=True
        )
        for name, kind, made in (
            ("lzma", 34925, lambda count: lzma.compress(bytes(count))),
            ("tiff_adobe_deflate", 8, zeros),
        )
    },
    "tiff: a JPEG of 2,000 scans": lambda: strips(
        1, 7, sequential(2000), size=(SIDE, SIDE), samples=3
    ),
    "tiff: a JPEG of 18 scans": lambda: strips(1, 7, sequential(18), size=(SIDE, SIDE), samples=3),
    "tiff: a JPEG of 18 scans in arithmetic coding": lambda: strips(
        1, 7, sequential(18, frame=0xC9), size=(SIDE, SIDE), samples=3
    ),
    "tiff: 1,000 strips of a JPEG of 18 scans": lambda: strips(
        1000, 7, sequential(18, size=(SIDE, 8)), size=(SIDE, SIDE), samples=3
    ),
    "tiff: 2,048 tiles of 64 megapixels": lambda: tiles(32_768, 1, 16, 4_000_000),
    "webp: 2,000,000 chunks": lambda: webp_chunks(b"JUNK", 2_000_000),
    "webp: 2,000,000 exif chunks": lambda: webp_chunks(b"EXIF", 2_000_000),
    "webp: 200,000 frames": lambda: webp_frames(200_000),
}

# Those that are refused before they are decoded, and with what.
REFUSED: Final[dict[str, type[ImageError]]] = {
    "jpeg: 20,000 sequential scans": ImageTooLarge,
    "jpeg: 2,000 sequential scans with restarts": ImageTooLarge,
    "jpeg: 100,000 scans of a small image": BrokenImage,
    "jpeg: 200 refining scans": ImageTooLarge,
    "jpeg: 60,000 refining scans of 1 megapixel": BrokenImage,
    "jpeg: tables between its scans": BrokenImage,
    "jpeg: 5,000,000 marks for a scan": ImageTooLarge,
    "jpeg: 9,000,000 restarts in its header": BrokenImage,
    "jpeg: arithmetic coding": UnsupportedImage,
    "jpeg: what Pillow sees behind another marker": BrokenImage,
    "jpeg: exif in 30,000 segments": BrokenImage,
    "jpeg: 43,000 segments": BrokenImage,
    "jpeg: 43,000 comments": BrokenImage,
    "jpeg: photoshop blocks": BrokenImage,
    "jpeg: quantization tables": BrokenImage,
    "png: a colour of 16 bits is transparent": ImageTooLarge,
    "bmp: ends of lines": ImageTooLarge,
    "bmp: runs of 4 bits": ImageTooLarge,
    "tiff: entries of 300 KB": BrokenImage,
    "tiff: 30,000 strips of the same 19 MB, turned": BrokenImage,
    "tiff: 30,000 empty blocks 3,800,000 times": BrokenImage,
    "tiff: a JPEG of 2,000 scans": ImageTooLarge,
    "tiff: 2,048 tiles of 64 megapixels": ImageTooLarge,
}
