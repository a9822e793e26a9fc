"""AVIF and HEIC: the two kinds of pictures in HEIF files (ISO/IEC 23008-12), as phones write them.

Pillow reads AVIF. HEIC needs the extra `heic`; docs/decisions/0017-heic.md says why it is one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile

from fingerpost.client.images.decoding import av1, hevc
from fingerpost.errors import UnsupportedImage

if TYPE_CHECKING:
    import io

    from PIL.ImageFile import ImageFile

__all__ = ["HEAD_BYTES", "heif_format", "open_avif", "open_heic"]

# Bytes of a file's begin that its brands are looked for in.
HEAD_BYTES: Final = 256

_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIC: Final = frozenset(b"heic heix heim heis hevc hevx hevm hevs".split())


def heif_format(head: bytes) -> str | None:
    """`AVIF` or `HEIC` by the brands of a file's first box; None for anything else.

    The major brand counts first: `mif1` and `msf1` say only that it is a HEIF file.
    """
    if head[4:8] != b"ftyp":
        return None
    (size,) = struct.unpack_from(">I", head)
    brands = [head[at : at + 4] for at in (8, *range(16, min(size, len(head)) - 3, 4))]
    for brand in brands:
        if brand in _AVIF:
            return "AVIF"
        if brand in _HEIC:
            return "HEIC"
    return None


def open_avif(source: io.BytesIO) -> ImageFile:
    """Open an AVIF picture.

    Raises:
        UnsupportedImage: Pillow was built without AVIF, which its wheels have.
    """
    if not SUPPORTED:
        raise UnsupportedImage("AVIF is not read by this build of Pillow: send a JPEG or PNG")
    av1.check_frames(source.getvalue())
    return AvifImageFile(source)


def open_heic(source: io.BytesIO) -> ImageFile:
    """Open a HEIC picture.

    Raises:
        UnsupportedImage: the extra `heic` is not installed.
    """
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise UnsupportedImage(
            "HEIC is read with the extra 'heic' only: pip install 'fingerpost[heic]', or send a "
            "JPEG"
        ) from error
    hevc.check_frames(source.getvalue())
    image: ImageFile = HeifImageFile(source)
    return image
