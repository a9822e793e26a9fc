"""Which images are refused before they are decoded."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.errors import ConfigurationError

__all__ = ["ImageConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Which images are refused before they are decoded, by their bytes and their header.

    Attributes:
        max_bytes: bytes of the encoded image. More lets one request hold more memory; 20 MB holds
            any camera's JPEG.
        max_pixels: width x height. More lets each decoding thread hold more memory: 64 megapixels
            take 256 MB decoded, and twice that with transparency; a 12 KB PNG can claim 100. A
            WebP's pixels count four times, because they take that much: 34 bytes can ask for 1 GB;
            those of AVIF and HEIC twice, and four times with transparency.
        max_side: pixels of the longer side. More lets a decoder hold longer rows; no useful image
            is longer than 32,768.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000
    max_side: int = 32_768

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 1 or more")
