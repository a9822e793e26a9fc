"""Open an untrusted image: its header is read and checked, no pixel is decoded.

The format must be on an allow-list, and bytes, pixels, sides and pieces are checked first. The
error for each kind of bad image:

=============================================  ==================================
no bytes                                       `EmptyImage` 400
over the byte or the pixel limit               `ImageTooLarge` 413
not an image, or of another format             `UnsupportedImage` 415
an allowed format, of a kind that is not read  `UnsupportedImage` 415
an allowed format, but truncated or damaged    `BrokenImage` 422
a side longer than the limit                   `BrokenImage` 422
more pieces than any real image has            `BrokenImage` 422
more work than its pixels (`check_structure`)  `ImageTooLarge` 413
=============================================  ==================================

Kinds that are not read are floating-point, 32-bit, signed or Lab pixels, 12-bit and lossless JPEG,
BMP with uncommon bit fields or a JPEG inside, and TIFF of other depths and compressions.

Everything else is decoded: EXIF orientation is applied, the first frame of an animation and the
first page of a document are taken, 12 and 16 bits are scaled to 8, and transparency is put on
white, as a browser shows it. A colour that is transparent is compared at full depth. Pixels are
decoded even where metadata is damaged (EXIF, colour profile, MPO index).

Pillow's plugins are called directly, not through `Image.open`: that tries other formats than the
image's, opens a phone's JPEG that contains a second image as an MPO, which fails where the second
image is damaged, and has one limit on pixels for the whole process.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile

from fingerpost.client.images.decoding.gif import GifFile
from fingerpost.client.images.decoding.heif import (
    HEAD_BYTES,
    heif_format,
    open_avif,
    open_heic,
)
from fingerpost.client.images.decoding.png import PngFile
from fingerpost.client.images.decoding.structure import check_structure
from fingerpost.client.images.decoding.tiff import TiffFile
from fingerpost.client.images.decoding.webp import WebpFile
from fingerpost.errors import BrokenImage, EmptyImage, ImageError, ImageTooLarge, UnsupportedImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

    from fingerpost.client.images.decoding.config import ImageConfig

    Encoded = bytes | bytearray | memoryview

__all__ = ["FORMATS", "open_image"]

_PLUGINS: Final[dict[str, Callable[[io.BytesIO], ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngFile,
    "WEBP": WebpFile,
    "BMP": BmpImageFile,
    "GIF": GifFile,
    "TIFF": TiffFile,
    "AVIF": open_avif,
    "HEIC": open_heic,
}
FORMATS: Final = tuple(_PLUGINS)

_MAGIC: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",  # BigTIFF
    b"MM\x00+": "TIFF",
}

# Headers that are sound, by what Pillow says of them: numbers that no standard has are damage.
_UNREAD: Final = re.compile(
    r"cannot handle (?:[2-9]|1[0-6])-(?:bit|layer)"
    r"|Unsupported BMP (?:bitfields|compression \((?:[4-6]|1[1-3])\)|pixel depth \((?:0|2|64)\)"
    r"|header type \(16\))"
)
_JPEG_LS: Final = b"\xff\xd8\xff\xf7"

# Modes that `pixels` can convert to RGB or gray without guessing a range: not F, I (32 bits), LAB.
_MODES: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
    | {"I;16", "I;16L", "I;16B", "I;16N"}
)

# Pillow reads headers piece by piece in Python: two-byte runs in a BMP of 20 MB take 4 s. A PNG of
# 20 MB in chunks of 1 KB needs 80,000 reads.
_MAX_PIECES: Final = 1 << 17

# How often 4 bytes for each pixel are in memory. A WebP: two canvases of the decoder, its output,
# Pillow's image. AVIF and HEIC, of up to 12 bits: the decoder's planes, its output, Pillow's image;
# measured, 8.5 bytes of 8 bits; twice as often with transparency.
_COPIES: Final = {"WEBP": 4, "AVIF": 2, "HEIF": 2}

# Bytes that a decoder gets at a time, for each of which it takes and releases the interpreter lock.
# With Pillow's 64 KB a 640 KB JPEG takes a tenth longer while another thread is busy.
_FEED_BYTES: Final = 1 << 24


def open_image(data: Encoded, config: ImageConfig) -> ImageFile:
    """Read only the header and check it; the caller decodes.

    Raises:
        EmptyImage, ImageTooLarge, UnsupportedImage, BrokenImage: see the module's table.
    """
    if not data:
        raise EmptyImage("the body is empty: send the image's bytes")
    if len(data) > config.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes, over the limit of {config.max_bytes:,}: "
            "send a smaller one"
        )
    name = _format_of(bytes(data[:HEAD_BYTES]))
    if name is None:
        raise UnsupportedImage(
            f"these {len(data):,} bytes are not an image of a supported format "
            f"({', '.join(FORMATS)}); they begin with {bytes(data[:12])!r}"
        )
    # The pieces of a JPEG, of which Pillow reads many, are limited by `check_structure`.
    source = io.BytesIO(data) if name == "JPEG" else _Source(data)
    try:
        check_structure(name, source.getvalue(), max_pixels=config.max_pixels)
        image = _PLUGINS[name](source)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{error}: send a smaller image") from error
    except Exception as error:  # plugins raise anything on hostile headers
        if _UNREAD.search(str(error)):
            raise UnsupportedImage(
                f"this kind of {name} is not read ({str(error)[:200]}): save it as a common one, "
                "with 8 bits"
            ) from error
        raise BrokenImage(
            f"the image's header is damaged or incomplete: {str(error)[:200]}"
        ) from error
    if name != "TIFF":  # whose strips are read that far, each: all of the file where they overlap
        image.decodermaxblock = _FEED_BYTES
    _check_size(image, config)
    if image.mode not in _MODES:
        raise UnsupportedImage(
            f"pixels of mode {image.mode} have no standard range: send 8 or 16 bits, gray or RGB"
        )
    return image


class _Source(io.BytesIO):
    """The bytes as a file, of which at most `_MAX_PIECES` pieces may be read."""

    def __init__(self, data: Encoded) -> None:
        super().__init__(data)
        self._left = _MAX_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise BrokenImage(
                f"the image is in more than {_MAX_PIECES:,} pieces: encode it anew, in larger ones"
            )
        return super().read(size)


def _format_of(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(_JPEG_LS):
        return None
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    return heif_format(head)


def _check_size(image: ImageFile, config: ImageConfig) -> None:
    width, height = image.size
    times = _COPIES.get(image.format or "", 1)
    if isinstance(image, PngFile):
        times = image.decodings
    elif image.format in ("AVIF", "HEIF") and image.mode == "RGBA":
        times *= 2
    pixels = width * height * times
    if pixels > config.max_pixels:
        raise ImageTooLarge(
            f"the image is {width} x {height}, decoding it takes {pixels / 1e6:.0f} megapixels, "
            f"over the limit of {config.max_pixels / 1e6:.0f}: send a smaller one"
        )
    if max(width, height) > config.max_side or min(width, height) < 1:
        raise BrokenImage(
            f"the image is {width} x {height}: a side must be 1 to {config.max_side} pixels"
        )
