"""Convert an encoded image, or pixels, to a model's input."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fingerpost.client.images.decoding import (
    ImageConfig,
    guarded,
    load,
    open_image,
    to_mode,
    turn_of,
)
from fingerpost.errors import InvalidRequest
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images.placement import Placement, place
from fingerpost.worker.images.resize import GRAY, reduction, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from fingerpost.client.images.decoding.opening import Encoded

__all__ = ["decode", "fit", "fit_placed", "prepare", "prepare_placed", "reencode"]


def prepare(data: Encoded, wanted: ImageInput, config: ImageConfig) -> NDArray[np.uint8] | bytes:
    """Convert an encoded image to a model's input, resized by the model's own rule.

    A JPEG is decoded no larger than needed (at 1/2, 1/4 or 1/8, which its DCT gives almost for
    nothing): 1600 x 1200 for 224 x 224 takes 0.27 to 0.47 of the time of the whole image, depending
    on what the memory for the whole image costs (`benchmarks/decoding`).

    Returns:
        uint8 `[height, width, channels]` in 0..255, or bytes where `wanted.encoded`.

    Raises:
        ImageError: see `decode`.
        Overloaded: there is not enough memory for this image now.
    """
    if wanted.encoded:
        return reencode(data, config)
    return guarded(lambda: _fitted(open_image(data, config), wanted))


def prepare_placed(
    data: Encoded, wanted: ImageInput, config: ImageConfig
) -> tuple[NDArray[np.uint8], Placement]:
    """Convert an encoded image as `prepare` does, and say where it lies in the model's input.

    Of a model without a size the image keeps its own; right and below it is filled up to
    `wanted.multiple`.

    Raises:
        ImageError, Overloaded: see `prepare`.
    """

    def work() -> tuple[NDArray[np.uint8], Placement]:
        image = open_image(data, config)
        size = image.size  # a JPEG that is decoded smaller has another one then
        if wanted.height:
            pixels = _fitted(image, wanted)
        else:
            pixels = _filled(_whole(image, wanted.channels), wanted.multiple)
        return pixels, place(size, turn_of(image), wanted)

    return guarded(work)


def decode(
    data: Encoded,
    *,
    size: tuple[int, int] | None,
    channels: int,
    config: ImageConfig | None = None,
) -> NDArray[np.uint8]:
    """Decode to uint8 `[height, width, channels]` in 0..255.

    Args:
        data: the encoded image.
        size: `(height, width)` to resize to (bilinear with antialiasing, without keeping the aspect
            ratio, as TensorFlow's retraining tutorial does); None keeps the image's size.
        channels: 3 for RGB, 1 for gray.
        config: which images to refuse; the default is `ImageConfig()`.

    Raises:
        ImageError, Overloaded: see `prepare`.
    """
    config = config or ImageConfig()
    if size is None:
        return guarded(lambda: _whole(open_image(data, config), channels))
    wanted = ImageInput(height=size[0], width=size[1], channels=channels)
    return guarded(lambda: _fitted(open_image(data, config), wanted))


def fit(pixels: NDArray[np.uint8], wanted: ImageInput) -> NDArray[np.uint8]:
    """Resize pixels that a client sent, uint8 `[H, W, 1 or 3]`, by the model's own rule.

    Pixels of the model's size are not changed: the client has cropped them already.

    Raises:
        InvalidRequest: another shape, or a model that takes only encoded images.
    """
    if wanted.encoded:
        raise InvalidRequest("this model decodes images itself: send them encoded, not as pixels")
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise InvalidRequest(
            f"pixels of shape {list(pixels.shape)}: an image is [height, width, 1 or 3]"
        )
    if pixels.shape == (wanted.height, wanted.width, wanted.channels):
        return pixels
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    return _array(resize(image, wanted), wanted.channels)


def fit_placed(
    pixels: NDArray[np.uint8], wanted: ImageInput
) -> tuple[NDArray[np.uint8], Placement]:
    """Resize pixels as `fit` does, and say where they lie; see `prepare_placed`."""
    placement = place((pixels.shape[1], pixels.shape[0]), None, wanted)
    if wanted.height:
        return fit(pixels, wanted), placement
    return _filled(pixels, wanted.multiple), placement


def reencode(data: Encoded, config: ImageConfig) -> bytes:
    """Check an image by decoding it; return bytes for a graph that decodes JPEG itself.

    An upright JPEG in RGB or gray is returned unchanged. Anything else becomes a PNG, which
    TensorFlow's `DecodeJpeg` also reads, without loss.

    Raises:
        ImageError, Overloaded: see `prepare`.
    """
    return guarded(lambda: _reencoded(data, config))


def _fitted(image: ImageFile, wanted: ImageInput) -> NDArray[np.uint8]:
    extent = None
    if image.format == "JPEG":
        by = reduction(image.size, wanted)
        least = (max(1, image.width // by), max(1, image.height // by))
        drafted = image.draft("RGB" if wanted.channels == 3 else "L", least)
        extent = drafted and drafted[1][2:]
    # Not a variable for the pixels: `resize` frees them before the result needs memory.
    fitted = resize(load(image), wanted, extent=extent, turn=turn_of(image))
    return _array(fitted, wanted.channels)


def _filled(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """The pixels with gray to the right and below, so that each side is a multiple."""
    missing = [-side % multiple for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    return np.pad(pixels, [*((0, more) for more in missing), (0, 0)], constant_values=GRAY)


def _whole(image: ImageFile, channels: int) -> NDArray[np.uint8]:
    return _array(_upright(image, "RGB" if channels == 3 else "L"), channels)


def _reencoded(data: Encoded, config: ImageConfig) -> bytes:
    image = open_image(data, config)
    if image.format == "JPEG" and image.mode in ("RGB", "L") and turn_of(image) is None:
        image.draft(None, (1, 1))  # damage is found at 1/8, too
        image.load()
        return bytes(data)
    out = io.BytesIO()
    _upright(image, "RGB").save(out, "PNG", compress_level=1)
    return out.getvalue()


def _upright(image: ImageFile, mode: str) -> Image.Image:
    converted = to_mode(load(image), mode)
    turn = turn_of(image)
    return converted if turn is None else converted.transpose(turn)


def _array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    width, height = image.size
    return np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, channels)
