"""Images to test with: one of every format and mode, and those that mean harm."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.models.manifest import Preprocessing


def wanted(height: int, width: int, channels: int = 3, **preprocessing: object) -> ImageInput:
    rule = Preprocessing(**preprocessing)  # type: ignore[arg-type]
    return ImageInput(height=height, width=width, channels=channels, preprocessing=rule)


def difference(left: NDArray[np.uint8], right: object) -> NDArray[np.int64]:
    return np.abs(left.astype(int) - np.asarray(right, dtype=int).reshape(left.shape))


def save(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def photo(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    gradient = np.add.outer(np.arange(size[1]) * 2, np.arange(size[0])).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(gradient)] * 3).convert(mode)


def scene(size: tuple[int, int], seed: int = 0, noise: float = 4) -> Image.Image:
    """Soft colours, sharp edges at all scales, and a camera's noise: a copy of one's own."""
    return _scene(size, seed, noise).copy()


@functools.lru_cache(maxsize=4)  # tests ask for the same one with other parameters
def _scene(size: tuple[int, int], seed: int, noise: float) -> Image.Image:
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    image = soft.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        x, y = (int(rng.integers(0, side)) for side in size)
        radius = int(rng.integers(3, 4 + size[0] // 8))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape(
            (x - radius, y - radius // 2, x + radius, y + radius // 2),
            outline=tuple(int(value) for value in rng.integers(0, 255, 3)),
            width=1 + size[0] // 200,
        )
    pixels = np.asarray(image, np.float32) + rng.normal(0, noise, (size[1], size[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@functools.cache
def zeros(count: int) -> bytes:
    """So many zero bytes, compressed to a thousandth; a megabyte of them is compressed once."""
    step = 2**20
    deflate = zlib.compressobj(9)
    head = deflate.compress(bytes(count % step)) + deflate.flush(zlib.Z_FULL_FLUSH)
    # Nothing before a full flush is referred to after it: what follows may stand many times.
    block = deflate.compress(bytes(step)) + deflate.flush(zlib.Z_FULL_FLUSH)
    adler32 = (count % 65_521) << 16 | 1
    return head + block * (count // step) + b"\x03\0" + struct.pack(">I", adler32)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_claiming(width: int, height: int, *, extra: bytes = b"", rows: int = 12_000_000) -> bytes:
    """A small PNG whose header claims any size; its data is zeros, as a bomb's are."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zeros(rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP's header with a canvas of any size, and a small frame in it."""
    chunks = save(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", lossless=True)[12:]
    at = chunks.index(b"VP8L")
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas + chunks[at:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_of_runs(runs: int) -> bytes:
    """A run-length encoded BMP in runs of one pixel each."""
    data = b"\x01\x05" * runs
    start = 14 + 40 + 1024
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(data), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, 2000, 2000, 1, 8, 1, len(data), 0, 0, 256, 0)
        + bytes(1024)
        + data
    )


def tiff(entries: Iterable[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """A TIFF of one directory with `(tag, type, count, value)`; `tail` follows it."""
    entries = list(entries)
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 0) + tail


def tiff_with_a_tile(side: int, *more: tuple[int, int, int, int]) -> bytes:
    """4 x 4 pixels in a tile of `side` x `side`, all zeros, compressed."""
    data = zeros(side * side)
    entries = [
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, side),
        (323, 4, 1, side),
        (324, 4, 1, 0),
        (325, 4, 1, len(data)),
        *more,
    ]
    entries[8] = (324, 4, 1, 8 + 2 + 12 * len(entries) + 4)
    return tiff(entries, data)


def tiff_of_strips(count: int) -> bytes:
    entries = [
        (256, 3, 1, 4),
        (257, 3, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, count, 8 + 2 + 12 * 8 + 4),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
    ]
    return tiff(entries, b"\x08\0\0\0" * count)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG with one of its scans repeated."""
    data = save(photo(mode="L"), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 1)
    third = data.index(b"\xff\xda", second + 1)
    return data[:third] + data[second:third] * count + data[third:]


def after_start(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """The JPEG with more segments right behind its start."""
    made = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
        for marker, body in segments
    )
    return jpeg[:2] + made + jpeg[2:]


def phone_jpeg() -> bytes:
    """A JPEG with a second image in it, as phones write them: Pillow calls it MPO."""
    return save(scene((640, 480)), "MPO", save_all=True, append_images=[photo((64, 48))])


def specimens() -> dict[str, bytes]:
    """A small good image of every format and mode, by name."""
    rgb, rgba = photo(), photo(mode="RGBA")
    rgba.putalpha(photo(mode="L"))
    gray16 = Image.fromarray(np.asarray(photo(mode="L")).astype(np.uint16) << 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [photo().rotate(90), photo().rotate(180)]}
    profile = {"icc_profile": bytes(200), "exif": exif}
    return {
        "jpeg": save(rgb, "JPEG"),
        "jpeg 4:4:4 turned": save(rgb, "JPEG", subsampling=0, **profile),
        "jpeg progressive": save(rgb, "JPEG", progressive=True),
        "jpeg with restarts": save(rgb, "JPEG", restart_marker_blocks=2),
        "jpeg gray": save(photo(mode="L"), "JPEG"),
        "jpeg cmyk": save(photo(mode="CMYK"), "JPEG"),
        "mpo": phone_jpeg(),
        "png turned": save(rgb, **profile),
        "png palette": save(photo(mode="P"), transparency=3),
        "png 1 bit": save(photo(mode="1")),
        "png gray": save(photo(mode="L")),
        "png gray alpha": save(photo(mode="LA")),
        "png alpha": save(rgba),
        "png 16 bits": save(gray16),
        "png colour key": save(rgb, transparency=(9, 9, 9)),
        "png animated": save(rgb, **frames),
        "webp turned": save(rgb, "WEBP", **profile),
        "webp lossless alpha": save(rgba, "WEBP", lossless=True),
        "webp animated": save(rgb, "WEBP", **frames),
        "avif": save(rgb, "AVIF", quality=90),
        "avif alpha": save(rgba, "AVIF", quality=90),
        "avif turned": save(rgb, "AVIF", quality=90, exif=exif.tobytes()),
        "avif animated": save(rgb, "AVIF", quality=90, **frames),
        "bmp": save(rgb, "BMP"),
        "bmp palette": save(photo(mode="P"), "BMP"),
        "bmp 1 bit": save(photo(mode="1"), "BMP"),
        "gif": save(rgb, "GIF"),
        "gif animated": save(rgb, "GIF", **frames),
        "tiff": save(rgb, "TIFF"),
        "tiff turned": save(rgb, "TIFF", exif=exif),
        "tiff deflate": save(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff lzw": save(rgba, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": save(rgb, "TIFF", compression="jpeg"),
        "tiff fax": save(photo(mode="1"), "TIFF", compression="group4"),
        "tiff cmyk": save(photo(mode="CMYK"), "TIFF"),
        "tiff palette": save(photo(mode="P"), "TIFF"),
        "tiff 16 bits": save(gray16, "TIFF"),
        "tiff ycbcr": save(photo(mode="YCbCr"), "TIFF"),
        "tiff big": save(rgb, "TIFF", big_tiff=True),
        "tiff pages": save(rgb, "TIFF", **frames),
    }
