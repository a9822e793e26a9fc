"""Boxes in pixels of an image as viewers show it, from those of the image as it was sent."""

from __future__ import annotations

from typing import Final

__all__ = ["SIDEWAYS", "Edges", "upright_box"]

# Left, top, right and bottom.
Edges = tuple[float, float, float, float]

SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""EXIF orientations of which width and height change places."""

# EXIF 2.32, 4.6.4 A: which orientations mirror what is left and right, or top and bottom, of the
# image after the two axes changed places.
_MIRRORED_ACROSS: Final = frozenset({2, 3, 6, 7})
_MIRRORED_DOWN: Final = frozenset({3, 4, 7, 8})


def upright_box(box: Edges, width: int, height: int, orientation: int) -> Edges:
    """The edges of a box after the image is turned upright.

    Args:
        box: in pixels of the image as it was sent.
        width, height: of that image.
        orientation: its EXIF orientation, 1 to 8.
    """
    left, top, right, bottom = box
    if orientation in SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if orientation in _MIRRORED_ACROSS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_DOWN:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
