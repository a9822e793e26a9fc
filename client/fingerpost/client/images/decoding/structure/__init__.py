"""How much work an image asks of its decoder, told from its structure before anything is decoded.

The limits on bytes and pixels do not bound the time: a JPEG of 220 KB can have its decoder go
20,000 times over 64 megapixels, a TIFF of 33 KB can have 2,048 tiles of 64 megapixels for one row
of pixels, and what Pillow reads of headers it reads in Python. Each format is checked for what
multiplies work. docs/decisions/0010-decoding.md has the measured times of the worst images that
pass, by format, and says where each limit comes from.

The checks themselves take a time that is linear in the image's bytes, with a small factor: they
search with regular expressions, and their loops go over pieces, whose number is limited, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.images.decoding.structure.bmp import check_bmp
from fingerpost.client.images.decoding.structure.heif import check_tiles
from fingerpost.client.images.decoding.structure.jpeg import check_jpeg
from fingerpost.client.images.decoding.structure.tiff import check_tiff

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_structure"]

_CHECKS: Final[dict[str, Callable[[bytes, int], None]]] = {
    "JPEG": check_jpeg,
    "BMP": check_bmp,
    "TIFF": check_tiff,
    "HEIC": check_tiles,
}


def check_structure(name: str, data: bytes, *, max_pixels: int) -> None:
    """Refuse an image that asks for more work than any honest image of its format.

    What is invalid or cut off is left to the decoder, whose work it ends. WebP and GIF have
    nothing to check: their decoders stop at the last pixel of the first frame, and what is
    around it costs them less than the pixels of an honest image. `PngFile` checks a PNG's chunks.

    Args:
        name: the format, as `FORMATS` has it.
        data: the encoded image.
        max_pixels: most pixels of an image; its work may be some fixed times as much.

    Raises:
        BrokenImage: more pieces than any real image has.
        ImageTooLarge: the pixels and how often they are gone over are too much together.
        UnsupportedImage: a coding whose work is not bounded by the image's bytes and pixels.
    """
    check = _CHECKS.get(name)
    if check is not None:
        check(data, max_pixels)
