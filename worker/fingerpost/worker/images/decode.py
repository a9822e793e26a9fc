"""Open an image that nobody vouches for: its header is read and judged, no pixel is decoded.

The format is on an allow-list, and bytes, pixels, sides and pieces are judged first. What each
kind of bad image gets:

=============================================  ==================================
no bytes                                       `EmptyImage` 400
over the byte or the pixel limit               `ImageTooLarge` 413
no image, or none of the formats read          `UnsupportedImage` 415
floating-point, 32-bit or Lab pixels           `UnsupportedImage` 415
a known format, but truncated or damaged       `BrokenImage` 422
a side longer than the limit                   `BrokenImage` 422
more pieces than any honest image has          `BrokenImage` 422
=============================================  ==================================

Everything else is decoded: EXIF orientation is applied, the first frame of an animation and the
first page of a document are taken, 16-bit gray is scaled to 8 bits, and transparency is laid on
white, as a browser shows it. Damaged metadata (EXIF, colour profile, MPO index) is no reason to
refuse pixels that are well.

The plugins are called by themselves, not through `Image.open`: that tries others than the one
meant, makes of a phone's JPEG with a second image in it an MPO, which fails where that one is
damaged, and has one limit on pixels for the whole process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import logging
import struct
import warnings
from typing import TYPE_CHECKING, Final

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fingerpost.errors import BrokenImage, EmptyImage, ImageTooLarge, UnsupportedImage

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from fingerpost.worker.images.config import ImageConfig

    Encoded = bytes | bytearray | memoryview

__all__ = ["FORMATS", "open_image"]

_PLUGINS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
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

# What `resizing` can make RGB or gray of without guessing at a range: not F, I (32 bits) and LAB.
_MODES: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
    | {"I;16", "I;16L", "I;16B", "I;16N"}
)

# Pillow reads headers piece by piece in Python: 20 MB of empty JPEG segments take 6 s, of two-byte
# runs in a BMP 4 s, of a TIFF's strips 25 s. A PNG of 20 MB in chunks of 1 KB needs 80,000 reads, a
# TIFF with a strip for each row and channel as many entries.
_MAX_PIECES: Final = 1 << 17

# A scan of some 80 bytes makes the decoder go through the whole image again; encoders write 10.
_MAX_SCANS: Final = 100

# Two canvases of the decoder, the bytes it hands over, and Pillow's own image.
_WEBP_COSTS: Final = 4

# The decoder takes and drops the interpreter lock for each piece it is given. With Pillow's 64 KB,
# a busy thread beside it makes a 640 KB JPEG take a tenth longer.
_FEED_BYTES: Final = 1 << 24

# Pillow warns and logs what it finds in what clients sent. Unbidden that would fill the log, and
# the registry of warnings with a line for each number in them. libtiff writes to standard error, up
# to a line for each row of an image; Pillow has no switch for that, but libtiff itself has.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_extension = importlib.util.find_spec("PIL._imaging")
with contextlib.suppress(OSError, AttributeError):  # linked statically, or built without it
    ctypes.CDLL(_extension.origin if _extension else None).TIFFSetErrorHandler(None)


def open_image(data: Encoded, config: ImageConfig) -> ImageFile:
    """Read the header alone and judge it; the caller decodes.

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
    name = _format_of(bytes(data[:12]))
    if name is None:
        raise UnsupportedImage(
            f"these {len(data):,} bytes are no image of a format read here "
            f"({', '.join(FORMATS)}); they begin with {bytes(data[:12])!r}"
        )
    source = _Source(data)
    try:
        if name == "TIFF":
            _check_entries(source)
        image = _PLUGINS[name](source)
    except BrokenImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{error}: send a smaller image") from error
    except Exception as error:  # plugins raise anything on hostile headers
        raise BrokenImage(
            f"the image's header is damaged or incomplete: {str(error)[:200]}"
        ) from error
    image.decodermaxblock = _FEED_BYTES
    _check_size(image, config)
    if image.mode not in _MODES:
        raise UnsupportedImage(
            f"pixels of mode {image.mode} have no range that all agree on: send 8 or 16 bits, "
            "gray or RGB"
        )
    if image.info.get("progressive") and source.getvalue().count(b"\xff\xda") > _MAX_SCANS:
        raise BrokenImage(f"the image has more than {_MAX_SCANS} scans: encode it anew")
    return image


class _Source(io.BytesIO):
    """The bytes as a file that may be read so many times."""

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
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _check_size(image: ImageFile, config: ImageConfig) -> None:
    width, height = image.size
    pixels = width * height * (_WEBP_COSTS if image.format == "WEBP" else 1)
    if isinstance(image, TiffImageFile) and 322 in image.tag_v2:
        # A tile is decoded whole, also where the image is smaller.
        across, down = image.tag_v2.get(322), image.tag_v2.get(323)
        if not (isinstance(across, int) and isinstance(down, int)):
            raise BrokenImage(f"the image's tiles are {across} x {down} pixels")
        pixels = max(pixels, across * down)
    if pixels > config.max_pixels:
        raise ImageTooLarge(
            f"the image is {width} x {height}, decoding it takes {pixels / 1e6:.0f} megapixels, "
            f"over the limit of {config.max_pixels / 1e6:.0f}: send a smaller one"
        )
    if max(width, height) > config.max_side or min(width, height) < 1:
        raise BrokenImage(
            f"the image is {width} x {height}: a side must be 1 to {config.max_side} pixels"
        )


def _check_entries(source: _Source) -> None:
    """Refuse a TIFF whose first directory has lists of numbers (strips, samples) without measure.

    TIFF 6.0, section 2; BigTIFF has the same with offsets of 8 bytes. What is cut short or makes
    no sense is left to the plugin.
    """
    data = source.getbuffer()
    order = "<" if data[0] == ord("I") else ">"
    big = 43 in data[2:4]
    head = struct.Struct(order + ("Q" if big else "I"))
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    try:
        (at,) = head.unpack_from(data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        tags = set()
        for number in range(min(entries, 1 << 16)):
            tag, kind, count = entry.unpack_from(data, at + number * entry.size)
            if tag in tags:  # of which libtiff believes the first, Pillow the last
                raise BrokenImage(f"the image says tag {tag} twice")
            tags.add(tag)
            if kind not in (1, 2, 6, 7) and count > _MAX_PIECES:  # but bytes and text
                raise BrokenImage(
                    f"the image is in {count:,} pieces, more than {_MAX_PIECES:,}: "
                    "encode it anew, in larger ones"
                )
    except (struct.error, OverflowError):
        return
