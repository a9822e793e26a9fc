"""Makes a large image as small as the model needs it before it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry import Instance

__all__ = ["shrink", "wanted_size"]

# The quality that cameras use.
_JPEG_QUALITY: Final = 90
_KEPT: Final = ("exif", "icc_profile")  # the orientation is in the first


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

    The aspect ratio is kept, and no side becomes shorter than wanted. A JPEG stays a JPEG, with its
    EXIF data and colour profile; any other format becomes a PNG. `data` is returned as it is if
    nothing is saved, if Pillow cannot read it, or if it is animated. The draft mode of the JPEG
    decoder halves the image while it decodes, down to twice the wanted size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            scale = max(height / image.height, width / image.width)
            sideways = image.getexif().get(0x0112, 1) >= 5  # the worker will rotate it
            if sideways:
                scale = max(height / image.width, width / image.height)
            if scale >= 1 or getattr(image, "is_animated", False):
                return data
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            kind = "JPEG" if image.format == "JPEG" else "PNG"
            options: dict[str, Any] = {
                name: image.info[name] for name in _KEPT if image.info.get(name)
            }
            if kind == "JPEG":
                options["quality"] = _JPEG_QUALITY
                image.draft(None, (2 * size[0], 2 * size[1]))
            pixels = image.convert("RGB") if image.mode == "P" else image
            small = pixels.resize(size, Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            small.save(buffer, kind, **options)
    except Exception:
        return data
    shrunk = buffer.getvalue()
    return shrunk if len(shrunk) < len(data) else data
