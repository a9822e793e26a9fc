"""AVIF and HEIC pictures that ask for much work, and some with frames behind the shown one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from fingerpost.errors import BrokenImage, ImageError, ImageTooLarge, UnsupportedImage
from tests.support.pictures import photo, save

__all__ = ["HOSTILE_HEIF", "REFUSED_HEIF", "avif", "heic", "heic_of", "hidden", "tiled"]


def hidden(data: bytes, frames: bytes) -> bytes:
    """A picture whose data is followed by further frames: `mdat` must be its last box."""
    place = data.rindex(b"mdat") + 4
    picture = data[place:]
    longer = picture + frames
    where = data.index(b"iloc")
    old, new = struct.pack(">I", len(picture)), struct.pack(">I", len(longer))
    assert data[where : place - 8].count(old) == 1
    head = data[:where] + data[where : place - 8].replace(old, new)
    return head + struct.pack(">I", len(longer) + 8) + b"mdat" + longer


def avif(count: int, obu: bytes = b"\x1a\x00") -> bytes:
    """An AVIF whose picture is followed by OBUs: frame headers of no bytes."""
    return hidden(save(photo((64, 48)), "AVIF"), obu * count)


def heic(count: int, size: tuple[int, int] = (128, 128)) -> bytes:
    """A HEIC whose picture is followed by so many copies of itself. It needs the extra `heic`."""
    data = heic_of(photo(size))
    return hidden(data, data[data.rindex(b"mdat") + 4 :] * count)


def heic_of(image: Image.Image, **options: object) -> bytes:
    from pillow_heif.as_plugin import _save_heif

    out = io.BytesIO()
    image.encoderinfo = options  # type: ignore[attr-defined]
    _save_heif(image, out, "picture.heic")
    return out.getvalue()


def tiled(tile: int, size: tuple[int, int], *, times: int, deep: bool = False) -> bytes:
    """A HEIC of `size`, made of one square tile of `tile` pixels a side, `times` x `times` times.

    Args:
        deep: that picture is laid over itself, which makes it as often again.
    """
    # The usual preset takes 6 s for a tile of 16 megapixels, this one 1.5 s.
    picture = heic_of(Image.new("RGB", (tile, tile)), enc_params={"preset": "ultrafast"})
    at = picture.index(b"hvcC") - 4
    settings = picture[at : at + struct.unpack_from(">I", picture, at)[0]]
    coded = picture[picture.rindex(b"mdat") + 4 :]
    grid = struct.pack(">4B2H", 0, 0, times - 1, times - 1, *size)
    overlay = struct.pack(">2B4H2H", 0, 0, 0, 0, 0, 0, *size) + bytes(4 * (times * times - 1))
    count = times * times
    references = [_box(b"dimg", struct.pack(">2H", 2, count), struct.pack(">H", 1) * count)]
    items = [(1, b"hvc1", coded, b"\x81\x02"), (2, b"grid", grid, b"\x03")]
    if deep:
        items.append((3, b"iovl", overlay, b"\x03"))
        references.append(_box(b"dimg", struct.pack(">2H", 3, count), struct.pack(">H", 2) * count))

    def meta(place: int) -> bytes:
        places = b""
        for number, _, data, _ in items:
            places += struct.pack(">3H2I", number, 0, 1, place, len(data))
            place += len(data)
        return _full(
            b"meta",
            _full(b"hdlr", struct.pack(">I4s12s", 0, b"pict", b""), b"\0"),
            _full(b"pitm", struct.pack(">H", items[-1][0])),
            _full(
                b"iinf",
                struct.pack(">H", len(items)),
                *(
                    _box(b"infe", b"\2\0\0\0", struct.pack(">2H4s", number, 0, kind), b"\0")
                    for number, kind, _, _ in items
                ),
            ),
            _full(b"iref", *references),
            _box(
                b"iprp",
                _box(
                    b"ipco",
                    settings,
                    _full(b"ispe", struct.pack(">2I", tile, tile)),
                    _full(b"ispe", struct.pack(">2I", *size)),
                ),
                _full(
                    b"ipma",
                    struct.pack(">I", len(items)),
                    *(struct.pack(">HB", number, len(own)) + own for number, _, _, own in items),
                ),
            ),
            _full(b"iloc", b"\x44\0", struct.pack(">H", len(items)), places),
        )

    head = _box(b"ftyp", b"heic\0\0\0\0mif1heic")
    place = len(head) + len(meta(0)) + 8
    return head + meta(place) + _box(b"mdat", *(data for _, _, data, _ in items))


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, name) + body


def _full(name: bytes, *parts: bytes) -> bytes:
    return _box(name, bytes(4), *parts)


def _noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


HOSTILE_HEIF: Final[dict[str, Callable[[], bytes]]] = {
    "avif: 32 megapixels": lambda: save(Image.new("RGB", (8000, 4000)), "AVIF", speed=10),
    "avif: 16 megapixels, transparent": lambda: save(
        Image.new("RGBA", (4000, 4000)), "AVIF", speed=10
    ),
    "avif: noise": lambda: save(_noise(2000, 1500), "AVIF", speed=10, quality=100),
    "avif: 20,000 hidden frames": lambda: avif(20_000),
    "avif: 1,000,000 delimiters": lambda: avif(1_000_000, b"\x12\x00"),
    "avif: boxes in boxes": lambda: b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\0moov" * 1_000_000,
    "heic: 8 megapixels": lambda: heic_of(Image.new("RGB", (4000, 2000))),
    "heic: noise": lambda: heic_of(_noise(800, 600), quality=100),
    "heic: 3,000 hidden pictures": lambda: heic(3000),
    "heic: a tile of 16 megapixels 256 times": lambda: tiled(4096, (64, 64), times=16),
    "heic: tiles of 1 megapixel, 4,096 times": lambda: tiled(1024, (64, 64), times=8, deep=True),
    "heic: boxes in boxes": lambda: b"\0\0\0\x10ftypheic\0\0\0\0" + b"\0\0\0\0moov" * 1_000_000,
}

# Those that are refused before they are decoded, and with what.
REFUSED_HEIF: Final[dict[str, type[ImageError]]] = {
    "avif: 20,000 hidden frames": UnsupportedImage,
    "avif: 1,000,000 delimiters": UnsupportedImage,
    "avif: boxes in boxes": BrokenImage,
    "heic: 3,000 hidden pictures": UnsupportedImage,
    "heic: a tile of 16 megapixels 256 times": ImageTooLarge,
    "heic: tiles of 1 megapixel, 4,096 times": ImageTooLarge,
    "heic: boxes in boxes": BrokenImage,
}
