"""Makes a large image as small as the model needs it before it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry import Instance

__all__ = ["shrink", "wanted_size"]

# The quality that cameras use.
_JPEG_QUALITY: Final = 90

# A client may hold what a worker refuses, and makes it small. Pillow's own limit, 512 MB as RGB.
_MAX_PIXELS: Final = 178_956_970


def wanted_size(instances: Iterable[Instance]) -> tuple[int, int] | None:
    """The largest height and width of the model's input among the workers, in pixels.

    None if a worker does not publish them (metadata `image`, such as `224x224x3`), or if its model
    decodes images itself (`any`).
    """
    height = width = 0
    for instance in instances:
        try:
            high, wide, *_ = map(int, instance.meta.get("image", "").split("x"))
        except ValueError:
            return None
        height, width = max(height, high), max(width, wide)
    return (height, width) if height and width else None


def shrink(data: bytes, height: int, width: int) -> bytes:
    """The encoded image, made as small as `height` and `width` in pixels allow.

    It is decoded by the rules of the workers (`images.decoding`): what is sent is upright and on
    white, RGB or gray of 8 bits, and of an animation it is the first frame. Metadata is not sent.
    The aspect ratio is kept, and no side becomes shorter than wanted. A JPEG stays a JPEG; any
    other format becomes a PNG. `data` is returned as it is if nothing is saved, or if it cannot be
    decoded: the worker says why. The draft mode of the JPEG decoder halves the image while it
    decodes, down to twice the wanted size.
    """
    try:
        shrunk = _shrunk(data, height, width)
    except Exception:  # decoders raise anything
        return data
    return shrunk if shrunk is not None and len(shrunk) < len(data) else data


def _shrunk(data: bytes, height: int, width: int) -> bytes | None:
    # Imported late: most clients never decode an image.
    from PIL import Image

    from fingerpost.client.images.decoding import (
        SIDEWAYS,
        ImageConfig,
        load,
        open_image,
        to_mode,
        turn_of,
    )

    limits = ImageConfig(max_bytes=len(data), max_pixels=_MAX_PIXELS, max_side=_MAX_PIXELS)
    image = open_image(data, limits)
    across, down = image.size
    upright = max(height / down, width / across)
    sideways = max(height / across, width / down)
    if min(upright, sideways) >= 1:
        return None
    box: tuple[float, float, float, float] = (0, 0, across, down)
    if image.format == "JPEG":
        scale = min(1, max(upright, sideways))
        drafted = image.draft(None, (round(2 * scale * across), round(2 * scale * down)))
        box = drafted[1] if drafted else box
    pixels = load(image)
    turn = turn_of(image)
    scale = sideways if turn in SIDEWAYS else upright
    if scale >= 1:
        return None
    size = (max(1, round(across * scale)), max(1, round(down * scale)))
    pixels = pixels.resize(size, Image.Resampling.BICUBIC, box=box)
    pixels = to_mode(pixels, "L" if pixels.mode in ("L", "LA") else "RGB")
    if turn is not None:
        pixels = pixels.transpose(turn)
    pixels.info = {}  # profiles, resolutions and comments would be written
    buffer = io.BytesIO()
    if image.format == "JPEG":
        pixels.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        pixels.save(buffer, "PNG")
    return buffer.getvalue()
