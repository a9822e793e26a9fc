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
import struct
from typing import TYPE_CHECKING, Final

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fingerpost.client.images.decoding.gif import GifFile
from fingerpost.client.images.decoding.png import PngFile
from fingerpost.client.images.decoding.tiff import TiffFile
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
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifFile,
    "TIFF": TiffFile,
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

# Pillow reads headers piece by piece in Python: 20 MB of empty JPEG segments take 6 s, of two-byte
# runs in a BMP 4 s, of a TIFF's strips 25 s. A PNG of 20 MB in chunks of 1 KB needs 80,000 reads, a
# TIFF with a strip for each row and channel as many entries.
_MAX_PIECES: Final = 1 << 17

# A scan of some 80 bytes makes the decoder process the whole image again; encoders write 10.
_MAX_SCANS: Final = 100

# How often a WebP's pixels are in memory: two canvases of the decoder, its output, Pillow's image.
_WEBP_COPIES: Final = 4

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
    name = _format_of(bytes(data[:12]))
    if name is None:
        raise UnsupportedImage(
            f"these {len(data):,} bytes are not an image of a supported format "
            f"({', '.join(FORMATS)}); they begin with {bytes(data[:12])!r}"
        )
    source = _Source(data)
    try:
        if name == "TIFF":
            with source.getbuffer() as view:  # closed even where an error's traceback holds it
                _check_entries(view)
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
    image.decodermaxblock = _FEED_BYTES
    _check_size(image, config)
    if image.mode not in _MODES:
        raise UnsupportedImage(
            f"pixels of mode {image.mode} have no standard range: send 8 or 16 bits, gray or RGB"
        )
    if image.info.get("progressive") and source.getvalue().count(b"\xff\xda") > _MAX_SCANS:
        raise BrokenImage(f"the image has more than {_MAX_SCANS} scans: encode it anew")
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
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _check_size(image: ImageFile, config: ImageConfig) -> None:
    width, height = image.size
    pixels = width * height * (_WEBP_COPIES if image.format == "WEBP" else 1)
    if isinstance(image, TiffFile) and 322 in image.tag_v2:
        # A tile is decoded whole, even where the image is smaller.
        across, down = image.tag_v2.get(322), image.tag_v2.get(323)
        if not (isinstance(across, int) and isinstance(down, int)):
            raise BrokenImage(f"the image's tiles are {across!r} x {down!r} pixels: encode it anew")
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


def _check_entries(data: memoryview) -> None:
    """Refuse a TIFF whose first directory has too long lists of numbers (strips, samples).

    See TIFF 6.0, section 2; BigTIFF has offsets of 8 bytes instead. Truncated or invalid
    directories are left to the plugin.
    """
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
            if tag in tags:  # libtiff would take the first, Pillow the last
                raise BrokenImage(f"the image has tag {tag} twice: encode it anew")
            tags.add(tag)
            if kind not in (1, 2, 6, 7) and count > _MAX_PIECES:  # not bytes or text
                raise BrokenImage(
                    f"the image is in {count:,} pieces, more than {_MAX_PIECES:,}: "
                    "encode it anew, in larger ones"
                )
    except (struct.error, OverflowError):
        return
