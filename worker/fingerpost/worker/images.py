"""From bytes that somebody sent to the pixels a model takes.

Nothing here trusts its input: the format is on an allow-list, and bytes, pixels and sides are
judged from the header before a pixel is decoded. What each kind of bad image gets:

=============================================  ==================================
no bytes                                       `EmptyImage` 400
over the byte or the pixel limit               `ImageTooLarge` 413
no image, or none of the formats read          `UnsupportedImage` 415
floating-point pixels                          `UnsupportedImage` 415
a known format, but truncated or damaged       `BrokenImage` 422
a side longer than the limit                   `BrokenImage` 422
=============================================  ==================================

Everything else is decoded: EXIF orientation is applied, the first frame of an animation is taken,
16-bit gray is scaled to 8 bits, and transparency is laid on white, as a browser shows it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fingerpost.registry import BrokenImage, EmptyImage, ImageTooLarge, UnsupportedImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput

__all__ = ["FORMATS", "ImageLimits", "decode", "open_image", "prepare", "reencode"]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_MAGIC: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"BM",
    b"GIF8",
    b"II*\x00",
    b"MM\x00*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is refused before decoding.

    Attributes:
        max_bytes: encoded size. 20 MB holds any camera's JPEG; more lets one request hold more
            memory.
        max_pixels: width x height. 64 megapixels are 192 MB as RGB; a 12 KB PNG can claim 100.
        max_side: the longer side; nothing useful is longer, and decoders keep whole rows.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000
    max_side: int = 32_768


def open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header alone and judge it; the caller decodes.

    Raises:
        EmptyImage, ImageTooLarge, UnsupportedImage, BrokenImage: see the module's table.
    """
    if not data:
        raise EmptyImage("the body is empty: send the image's bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes, over the limit of {limits.max_bytes:,}: "
            "send a smaller one"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{error}: send a smaller image") from error
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise BrokenImage("the image's header is damaged or incomplete") from error
        raise UnsupportedImage(
            f"these {len(data):,} bytes are no image of a format read here "
            f"({', '.join(FORMATS)}); they begin with {data[:12]!r}"
        ) from error
    except Exception as error:  # decoders raise anything on hostile headers
        raise BrokenImage(f"the image's header cannot be read: {error}") from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the image is {width} x {height}, {width * height / 1e6:.0f} megapixels, over the "
            f"limit of {limits.max_pixels / 1e6:.0f}: send a smaller one"
        )
    if max(width, height) > limits.max_side or min(width, height) < 1:
        raise BrokenImage(
            f"the image is {width} x {height}: a side must be 1 to {limits.max_side} pixels"
        )
    if image.mode == "F":
        raise UnsupportedImage("floating-point pixels have no fixed range: send 8 or 16 bits")
    return image


def decode(
    data: bytes,
    *,
    size: tuple[int, int] | None,
    channels: int,
    limits: ImageLimits | None = None,
) -> NDArray[np.uint8]:
    """Decode to uint8 `[height, width, channels]` in 0..255.

    Args:
        data: the encoded image.
        size: `(height, width)` to resize to (bilinear with antialiasing, the aspect ratio not
            kept, as TensorFlow's retraining tutorial does it); None keeps the image's own.
        channels: 3 for RGB, 1 for gray.
        limits: what to refuse; the default is `ImageLimits()`.

    A JPEG is decoded no larger than the size needs (draft mode: at 1/2, 1/4 or 1/8), which on
    1600 x 1200 takes 0.38 of the time of decoding it whole.

    Raises:
        ImageError: see the module's table.
    """
    image = open_image(data, limits or ImageLimits())
    mode = "RGB" if channels == 3 else "L"
    if size is not None and image.format == "JPEG":
        # EXIF may turn the image by 90 degrees, so ask for what covers both ways up. Twice the
        # size leaves the antialiased resize something to average over.
        side = 2 * max(size)
        image.draft(mode, (side, side))
    try:
        ImageOps.exif_transpose(image, in_place=True)
        image = _to_mode(image, mode)
        if size is not None and image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
        raise BrokenImage(f"the image cannot be decoded: {error}") from error
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def prepare(data: bytes, wanted: ImageInput, limits: ImageLimits) -> NDArray[np.uint8] | bytes:
    """Make of an encoded image what a model's input wants. Raises as `decode` does."""
    if wanted.encoded:
        return reencode(data, limits)
    size = (wanted.height, wanted.width)
    return decode(data, size=size, channels=wanted.channels, limits=limits)


def reencode(data: bytes, limits: ImageLimits) -> bytes:
    """Return bytes for a graph that decodes JPEG itself, after decoding them once as a check.

    An upright JPEG in RGB or gray goes through unchanged. Anything else becomes a PNG, which
    TensorFlow's `DecodeJpeg` reads as well, without loss.
    """
    pixels = decode(data, size=None, channels=3, limits=limits)
    image = open_image(data, limits)
    orientation = 0x0112
    if (
        image.format == "JPEG"
        and image.mode in ("RGB", "L")
        and image.getexif().get(orientation, 1) == 1
    ):
        return data
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to RGB or L without losing what a plain `convert` would lose."""
    if image.mode.startswith("I"):  # 16-bit gray: convert() would saturate it at 255
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode != mode:
        return image.convert(mode)
    image.load()
    return image
