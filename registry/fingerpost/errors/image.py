"""Errors of images: what is wrong with one that a caller sent."""

from __future__ import annotations

from fingerpost.errors.base import CallerError

__all__ = [
    "BrokenImage",
    "EmptyImage",
    "ImageError",
    "ImageTooLarge",
    "InvalidFrame",
    "SuspectImage",
    "UnsupportedImage",
]


class ImageError(CallerError):
    """The image cannot be classified; another worker would give the same error."""

    code = "bad_image"


class EmptyImage(ImageError):
    """The image has no bytes."""

    code = "empty_image"


class ImageTooLarge(ImageError):
    """The image has more bytes or more pixels than the limit; checked before decoding."""

    status = 413
    code = "image_too_large"


class UnsupportedImage(ImageError):
    """The data are not an image, or not in a supported format."""

    status = 415
    code = "unsupported_image"


class BrokenImage(ImageError):
    """An image of a known format that is truncated, damaged, or of an impossible shape."""

    status = 422
    code = "broken_image"


class InvalidFrame(ImageError):
    """The shared memory of a decoded frame is missing, not sealed, or of another size."""

    status = 422
    code = "invalid_frame"


class SuspectImage(ImageError):
    """Two workers had the whole image and fell silent: a third one is not tried."""

    status = 422
    code = "suspect_image"
