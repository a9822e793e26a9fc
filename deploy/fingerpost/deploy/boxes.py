"""Draws the boxes of a detection on its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageOps

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.client.tasks.results import Detection

__all__ = ["draw_boxes"]

_COLOURS: Final = ("red", "lime", "blue", "orange", "magenta", "cyan")


def draw_boxes(image: Path, found: Detection, target: Path) -> None:
    """Write the image with a frame and a name for each object, upright, as a viewer shows it.

    The frames are drawn in the pixels as they were sent, which is what boxes are in; the image is
    turned upright afterwards.
    """
    with Image.open(image) as opened:
        exif = opened.getexif()
        picture = opened.convert("RGB")
    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    for each, number in zip(found, found.classes, strict=True):
        colour = _COLOURS[int(number) % len(_COLOURS)]
        draw.rectangle((each.left, each.top, each.right, each.bottom), outline=colour, width=width)
        draw.text((each.left + width + 1, each.top + width), each.label, fill=colour)
    picture.getexif().update(exif)
    ImageOps.exif_transpose(picture).save(target)
