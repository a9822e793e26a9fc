"""Where an image lies in a model's input, and so where the model's pixels lie in the image.

All eight EXIF orientations, crops, stretches and letterboxes are undone by the same three steps:
off the canvas, back to the orientation in which the image was sent, and back to its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from fingerpost.client.images.decoding import SIDEWAYS
from fingerpost.worker.images.resize import plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput

__all__ = ["Placement", "place"]

_Turn = Image.Transpose
# EXIF 2.32, 4.6.4 A: the orientation for which an image is turned like this.
_ORIENTATIONS: Final = {
    None: 1,
    _Turn.FLIP_LEFT_RIGHT: 2,
    _Turn.ROTATE_180: 3,
    _Turn.FLIP_TOP_BOTTOM: 4,
    _Turn.TRANSPOSE: 5,
    _Turn.ROTATE_270: 6,
    _Turn.TRANSVERSE: 7,
    _Turn.ROTATE_90: 8,
}
_INVERSE: Final = {_Turn.ROTATE_90: _Turn.ROTATE_270, _Turn.ROTATE_270: _Turn.ROTATE_90}
# Sideways turns read as: x of the image is y upright, and the edge that each counts from.
_FROM_RIGHT: Final = frozenset(
    {_Turn.FLIP_LEFT_RIGHT, _Turn.ROTATE_180, _Turn.ROTATE_90, _Turn.TRANSVERSE}
)
_FROM_BOTTOM: Final = frozenset(
    {_Turn.FLIP_TOP_BOTTOM, _Turn.ROTATE_180, _Turn.ROTATE_270, _Turn.TRANSVERSE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an image lies in a model's input.

    Attributes:
        width, height: of the image as it was sent, in pixels.
        turn: what turned it upright.
        box: the part of it that the model sees: left, top, right, bottom.
        size: width and height that this part was resized to, before it was turned.
        offset: where the upright part lies on the model's canvas: x and y.
    """

    width: int
    height: int
    turn: Image.Transpose | None
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    offset: tuple[int, int]

    @property
    def orientation(self) -> int:
        """The image's EXIF orientation, 1 to 8."""
        return _ORIENTATIONS[self.turn]

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the part that the model sees, on its canvas."""
        across, down = self.size
        return (down, across) if self.turn in SIDEWAYS else (across, down)

    def to_sent(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes in pixels of the image as it was sent, clipped to it.

        Args:
            boxes: float64 `[n, 4]`: x0, y0, x1, y1 in pixels of the model's input.

        Returns:
            The same shape; a box outside of the image has no area.
        """
        xs = boxes[:, 0::2] - self.offset[0]
        ys = boxes[:, 1::2] - self.offset[1]
        if self.turn in SIDEWAYS:
            xs, ys = ys, xs
        across, down = self.size
        if self.turn in _FROM_RIGHT:
            xs = across - xs
        if self.turn in _FROM_BOTTOM:
            ys = down - ys
        left, top, right, bottom = self.box
        xs = np.sort(left + xs * ((right - left) / across), axis=1).clip(0, self.width)
        ys = np.sort(top + ys * ((bottom - top) / down), axis=1).clip(0, self.height)
        return np.stack([xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]], axis=1)

    def map_to_sent(self, image: Image.Image, outside: int) -> Image.Image:
        """A map of the model's canvas as one of the image as it was sent.

        Args:
            image: a gray image of 8 or 16 bits whose values are classes; its size may be any part
                or multiple of the canvas's, as segmenters give it.
            outside: the class of what the model did not see.
        """
        turned = image
        if self.turn is not None:
            turned = image.transpose(_INVERSE.get(self.turn, self.turn))
        left, top, right, bottom = (round(each) for each in self.box)
        part = turned.resize((right - left, bottom - top), Image.Resampling.NEAREST)
        if part.size == (self.width, self.height):
            return part
        whole = Image.new(part.mode, (self.width, self.height), outside)
        whole.paste(part, (left, top))
        return whole

    def seen(self, shape: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of a map `[height, width]` of the canvas (height, width) that has the image.

        Returns:
            Left, top, right and bottom in pixels of the map.
        """
        down, across = shape[0] / canvas[0], shape[1] / canvas[1]
        (x, y), (width, height) = self.offset, self.upright_size
        left, top = round(x * across), round(y * down)
        right = max(left + 1, round((x + width) * across))
        return left, top, right, max(top + 1, round((y + height) * down))


def place(size: tuple[int, int], turn: Image.Transpose | None, wanted: ImageInput) -> Placement:
    """Where an image of a size lies in a model's input, as `resize` puts it there.

    Args:
        size: width and height as it was sent.
        turn: what turns it upright.
        wanted: the model's input; without a size it takes images of any, as they are.
    """
    width, height = size
    if not wanted.height:
        whole = (0.0, 0.0, float(width), float(height))
        return Placement(width=width, height=height, turn=turn, box=whole, size=size, offset=(0, 0))
    box, (across, down) = plan((float(width), float(height)), wanted, turn)
    upright = (down, across) if turn in SIDEWAYS else (across, down)
    return Placement(
        width=width,
        height=height,
        turn=turn,
        box=box,
        size=(across, down),
        offset=((wanted.width - upright[0]) // 2, (wanted.height - upright[1]) // 2),
    )
