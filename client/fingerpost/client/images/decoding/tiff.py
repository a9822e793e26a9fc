"""TIFF: what Pillow takes for another picture, or for none.

Pillow gives samples of 12 bits as if they had 16, does not invert 16 bits where 0 is white, and
reads some of these kinds only in one byte order. TIFF 6.0, sections 2 and 8.
"""

from __future__ import annotations

from PIL import Image, ImageChops, ImageOps
from PIL.TiffImagePlugin import II, TiffImageFile

from fingerpost.client.images.decoding.bits import lower, upper
from fingerpost.errors import UnsupportedImage

__all__ = ["TiffFile"]

_BITS, _PHOTOMETRIC, _COMPRESSION, _SAMPLE_FORMAT = 258, 262, 259, 339
_SIGNED = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1


class TiffFile(TiffImageFile):
    """A TIFF of which the first page is read.

    Raises:
        UnsupportedImage: its kind of pixels or its compression is not read.
    """

    _inverted = False
    _bits = 0

    def _setup(self) -> None:
        """Called by Pillow once the directory is read."""
        tags = self.tag_v2
        bits = tags.get(_BITS, (1,))
        self._bits = bits[0] if isinstance(bits, tuple) and len(bits) == 1 else 0
        if self._bits in (12, 16) and tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO:
            self._inverted = _PHOTOMETRIC in tags  # where it is missing, libtiff says black
            tags[_PHOTOMETRIC] = _BLACK_IS_ZERO
        order = tags._prefix
        try:
            if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
                raise SyntaxError("signed samples")
            if self._bits == 12:  # is packed from the highest bit on, in both byte orders
                tags._prefix = II
            super()._setup()
        except (SyntaxError, KeyError) as error:
            if isinstance(error, KeyError) and error.args != (tags.get(_COMPRESSION, 1),):
                raise  # a tag is missing
            kind = {
                "compression": tags.get(_COMPRESSION, 1),
                "photometric interpretation": tags.get(_PHOTOMETRIC),
                "bits": bits,
                "sample format": tags.get(_SAMPLE_FORMAT, (1,)),
            }
            said = ", ".join(f"{name} {value}" for name, value in kind.items())
            raise UnsupportedImage(
                f"a TIFF with {said[:200]} is not read: save it with 8 or 16 bits, gray or RGB"
            ) from error
        finally:
            tags._prefix = order

    def finished(self) -> Image.Image:
        """The decoded pixels, those of 12 and 16 bits as L."""
        self.load()
        if not self.mode.startswith("I;16"):
            return self
        gray = upper(self)
        if self._bits == 12:
            gray = ImageChops.add(
                gray.point([value << 4 & 0xFF for value in range(256)]),
                lower(self).point([value >> 4 for value in range(256)]),
            )
        return ImageOps.invert(gray) if self._inverted else gray
