"""A large image made as small as the model needs it, before it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry import Instance

__all__ = ["shrink", "wanted_size"]

# As cameras write it.
_JPEG_QUALITY: Final = 90
_KEPT: Final = ("exif", "icc_profile")  # the orientation is in the first


def wanted_size(instances: Iterable[Instance]) -> tuple[int, int] | None:
    """The largest height and width that one of the workers says its model wants.

    None where one does not say (meta `image`, such as `224x224x3`), or decodes by itself (`any`).
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
    """The image with no side shorter than wanted, its shape kept; `data` where that saves nothing.

    A JPEG stays a JPEG, with its EXIF data and colour profile; anything else becomes a PNG. What
    Pillow cannot read, and what moves, is returned as it is: the worker will say what is wrong.
    The draft mode of the JPEG decoder halves while it decodes, down to twice the wanted size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            scale = max(height / image.height, width / image.width)
            sideways = image.getexif().get(0x0112, 1) >= 5  # the worker will turn it
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
