"""Convert an image to the size, the aspect ratio and the mode that a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image

from fingerpost.client.images.decoding import SIDEWAYS, to_mode
from fingerpost.worker.models.manifest import Filter, Resize

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import ImageInput

__all__ = ["GRAY", "plan", "reduction", "resize"]

_FILTERS: Final = {
    Filter.NEAREST: Image.Resampling.NEAREST,
    Filter.BILINEAR: Image.Resampling.BILINEAR,
    Filter.BICUBIC: Image.Resampling.BICUBIC,
    Filter.LANCZOS: Image.Resampling.LANCZOS,
}

# The gray that `pad` fills with: that of YOLO's letterbox, with which detectors are trained.
GRAY: Final = 114

# A JPEG is decoded with at least this many pixels for each of the model's, on each side. For top-1
# and times with 1.25 and 2 see docs/decisions/0010-decoding.md.
_ROOM: Final = 1.25

# From this many source pixels for each of the model's on, on each side, whole pixels are averaged
# first. By Pillow's documentation 3 gives almost the same image; measured, 0.3 of 255 differ.
_REDUCING_GAP: Final = 3.0


def reduction(size: tuple[int, int], wanted: ImageInput) -> int:
    """How many times smaller, on each side, a JPEG may be decoded: 1, 2, 4 or 8.

    EXIF may turn it by 90 degrees, so the result holds for both orientations. `nearest` picks
    pixels, and would pick others from a smaller image: for it the result is 1.
    """
    rule = wanted.preprocessing
    if rule.filter is Filter.NEAREST:
        return 1
    scale = min(
        _scale(size, (wanted.width, wanted.height), rule.resize, rule.crop_fraction),
        _scale(size, (wanted.height, wanted.width), rule.resize, rule.crop_fraction),
    )
    return next((by for by in (8, 4, 2) if by * _ROOM <= scale), 1)


def resize(
    image: Image.Image,
    wanted: ImageInput,
    *,
    extent: tuple[float, float] | None = None,
    turn: Image.Transpose | None = None,
) -> Image.Image:
    """Crop, resize, put on white, convert and turn, in one pass over a large image.

    Args:
        image: RGB, L, RGBA or LA, as `decoding.load` returns it.
        extent: width and height of the picture within `image`: a JPEG that is decoded smaller may
            end within its last pixel.
        turn: the transposition that turns the image upright.

    Returns:
        RGB for 3 `wanted.channels`, L for 1, of `wanted.width` x `wanted.height`.
    """
    rule = wanted.preprocessing
    mode = "RGB" if wanted.channels == 3 else "L"
    box, size = plan(extent or image.size, wanted, turn)
    if image.size != size or box != (0, 0, *image.size):
        image = image.resize(size, _FILTERS[rule.filter], box=box, reducing_gap=_REDUCING_GAP)
    image = to_mode(image, mode)
    if turn is not None:
        image = image.transpose(turn)
    if image.size == (wanted.width, wanted.height):
        return image
    canvas = Image.new(mode, (wanted.width, wanted.height), (GRAY,) * len(mode))
    canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
    return canvas


def plan(
    size: tuple[float, float], wanted: ImageInput, turn: Image.Transpose | None
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """The part of an image that a model sees, and the width and height that it becomes.

    Both are those of the image as it lies in memory, before it is turned upright.

    Args:
        size: width and height of the image.
        wanted: the model's input.
        turn: the transposition that turns the image upright.
    """
    rule = wanted.preprocessing
    width, height = size
    across, down = wanted.width, wanted.height
    if turn in SIDEWAYS:
        across, down = down, across
    scale = _scale(size, (across, down), rule.resize, rule.crop_fraction)
    box = (0.0, 0.0, width, height)
    if rule.resize is Resize.CROP:
        left, top = (width - across * scale) / 2, (height - down * scale) / 2
        box = (max(0.0, left), max(0.0, top), min(width, width - left), min(height, height - top))
    elif rule.resize is Resize.PAD:
        across = min(across, max(1, round(width / scale)))
        down = min(down, max(1, round(height / scale)))
    return box, (across, down)


def _scale(
    size: tuple[float, float], target: tuple[int, int], rule: Resize, crop_fraction: float
) -> float:
    """Source pixels for each of the target's, on the side where they are fewest.

    Cropped pixels do not count; `pad` has as many on both sides.
    """
    ratios = (size[0] / target[0], size[1] / target[1])
    if rule is Resize.PAD:
        return max(ratios)
    return min(ratios) * (crop_fraction if rule is Resize.CROP else 1)
