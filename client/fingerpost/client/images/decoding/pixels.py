"""From an opened image to pixels that can be averaged: 8 bits, upright, transparency on white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from PIL import ExifTags, Image

from fingerpost.client.images.decoding.bits import upper
from fingerpost.client.images.decoding.gif import GifFile
from fingerpost.client.images.decoding.png import PngFile
from fingerpost.client.images.decoding.tiff import TiffFile
from fingerpost.errors import BrokenImage, ImageError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

T = TypeVar("T")

__all__ = ["SIDEWAYS", "guarded", "load", "to_mode", "turn_of"]

# EXIF 2.32, 4.6.4 A, Orientation: the transposition that turns the image upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Where Pillow has what says how to turn an image.
_TURNING: Final = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})

SIDEWAYS: Final = frozenset(
    {
        Image.Transpose.TRANSPOSE,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_270,
    }
)
"""The transpositions that swap width and height."""


def guarded(work: Callable[[], T]) -> T:
    """Call `work` and translate the errors of decoders: OSError, SyntaxError, struct.error, ...

    Raises:
        ImageError: as `work` raises it.
        BrokenImage: the pixels cannot be decoded.
        Overloaded: there is not enough memory for this image now.
    """
    try:
        return work()
    except ImageError:
        raise
    except MemoryError as error:
        raise Overloaded("not enough memory for this image now: use another worker") from error
    except Exception as error:
        raise BrokenImage(f"the image cannot be decoded: {str(error)[:200]}") from error


def load(image: ImageFile) -> Image.Image:
    """Decode the pixels, into a mode in which they may be averaged: RGB, L, RGBA or LA.

    `turn_of` says how to turn them upright, `to_mode` puts them on white.
    """
    if isinstance(image, (PngFile, TiffFile, GifFile)):
        return _averageable(image.finished())
    image.load()
    return _averageable(image)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """The transposition that turns the image upright, by its EXIF data or XMP; None where it is.

    Damaged metadata counts as none. Pillow turns a TIFF itself when it loads.
    """
    if _TURNING.isdisjoint(image.info) and not isinstance(image, TiffFile):
        return None  # as of most images; Pillow's EXIF takes as long as the pixels of a small one
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata of any kind
        return None


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert what `load` returned to RGB or L, with transparent parts on white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _averageable(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels may be averaged: RGB, L, RGBA or LA, as most images are."""
    if image.mode.startswith("I;16"):
        return upper(image)
    if image.has_transparency_data:
        if image.mode in ("RGBA", "LA"):
            return image
        return image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")
