"""Boxes of a foreign detector, in pixels of the image as it was sent. Pure, without NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.foreign.metadata import ForeignModel

__all__ = ["ImageFrame", "frame_of", "sent_boxes"]

# EXIF 2.32, 4.6.4 A: of an orientation, whether upright x counts from the other edge of the sent
# image's axis, and upright y; 5 to 8 lie on their sides.
_FROM_RIGHT: Final = frozenset({2, 3, 7, 8})
_FROM_BOTTOM: Final = frozenset({3, 4, 6, 7})


class ImageFrame(NamedTuple):
    """The size of an image as it was sent, and its EXIF orientation, 1 to 8."""

    width: int
    height: int
    orientation: int


def frame_of(image: bytes) -> ImageFrame:
    """The frame of an encoded image. Raises `ImageError` where it cannot be read."""
    # Imported late: most clients never decode an image.
    from fingerpost.client.images.decoding import ImageConfig, guarded, open_image

    def read() -> ImageFrame:
        found = open_image(image, ImageConfig())
        orientation = found.getexif().get(0x0112, 1)
        if type(orientation) is not int or not 1 <= orientation <= 8:
            orientation = 1
        return ImageFrame(found.width, found.height, orientation)

    return guarded(read)


def sent_boxes(
    model: ForeignModel, boxes: list[list[float]], frame: ImageFrame
) -> list[Sequence[float]]:
    """Left, top, right and bottom edge of each box, clipped to the image.

    The client sends tensors upright and stretched (`size`), so these boxes are turned back and
    stretched back. A server that decodes the image itself is taken to ignore its orientation.

    Args:
        model: its `box_format` and `box_unit` say what the numbers are.
        boxes: four numbers each.
        frame: of the image that was sent.
    """
    turned = model.tensor is not None
    sideways = turned and frame.orientation > 4
    width, height = frame.width, frame.height
    across, down = (height, width) if sideways else (width, height)  # as the model sees it
    if model.box_unit == "share":
        scale_x, scale_y = float(across), float(down)
    elif model.tensor is not None:
        scale_x, scale_y = across / model.tensor.width, down / model.tensor.height
    else:
        scale_x = scale_y = 1.0
    found: list[Sequence[float]] = []
    for box in boxes:
        left, top, right, bottom = _edges(model.box_format, box)
        xs, ys = [left * scale_x, right * scale_x], [top * scale_y, bottom * scale_y]
        if turned:
            xs, ys = _turned_back(xs, ys, frame)
        found.append(
            (
                min(max(min(xs), 0.0), width),
                min(max(min(ys), 0.0), height),
                min(max(max(xs), 0.0), width),
                min(max(max(ys), 0.0), height),
            )
        )
    return found


def _edges(form: str, box: list[float]) -> tuple[float, float, float, float]:
    first, second, third, fourth = map(float, box)
    if form == "yxyx":
        return second, first, fourth, third
    if form == "center":
        return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    return first, second, third, fourth


def _turned_back(
    xs: list[float], ys: list[float], frame: ImageFrame
) -> tuple[list[float], list[float]]:
    orientation = frame.orientation
    if orientation > 4:
        xs, ys = ys, xs
    if orientation in _FROM_RIGHT:
        xs = [frame.width - each for each in xs]
    if orientation in _FROM_BOTTOM:
        ys = [frame.height - each for each in ys]
    return xs, ys
