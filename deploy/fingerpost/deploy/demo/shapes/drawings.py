"""Images of drawn shapes, and where these are."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SHAPES", "Drawing", "Edges", "draw", "write_drawings"]

SHAPES: Final = ("circle", "square", "triangle")

# Left, top, right and bottom, in pixels.
Edges = tuple[int, int, int, int]

# Of the image's shorter side.
_SIZES: Final = (0.22, 0.42)
_MOST: Final = 3
_TRIES: Final = 30
# Sides of images, width by height; halves of them for training, which takes less time.
_SIDES: Final = ((256, 192), (240, 240), (192, 160), (192, 256))


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image, and the name and the edges of each shape in it."""

    image: Image.Image
    shapes: tuple[tuple[str, Edges], ...]


def draw(rng: random.Random, *, half: bool = False) -> Drawing:
    """One to three shapes that do not touch, in bright colours on a dark, noisy ground."""
    width, height = rng.choice(_SIDES)
    if half:
        width, height = width // 2, height // 2
    noise = Image.frombytes("RGB", (width, height), rng.randbytes(width * height * 3))
    ground = Image.new("RGB", (width, height), _colour(rng, 0, 60))
    image = Image.blend(ground, noise, 0.12)
    pen = ImageDraw.Draw(image)
    shapes: list[tuple[str, Edges]] = []
    wanted = rng.randint(1, _MOST)
    for _ in range(_TRIES):
        if len(shapes) == wanted:
            break
        side = int(rng.uniform(*_SIZES) * min(width, height))
        left, top = rng.randrange(width - side), rng.randrange(height - side)
        box = (left, top, left + side, top + side)
        if not any(_touch(box, other) for _, other in shapes):
            name = rng.choice(SHAPES)
            _draw_shape(pen, name, box, _colour(rng, 130, 256))
            shapes.append((name, box))
    return Drawing(image, tuple(shapes))


def write_drawings(folder: Path, count: int, seed: int) -> Path:
    """Write drawings as `folder/images/*.png`, and their boxes in COCO's form.

    The same arguments write the same pixels.

    Returns:
        The annotation file, `folder/boxes.json`.
    """
    rng = random.Random(seed)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawing = draw(rng)
        name = f"{number:03}.png"
        drawing.image.save(folder / "images" / name)
        width, height = drawing.image.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for shape, (left, top, right, bottom) in drawing.shapes:
            annotations.append(
                {
                    "image_id": number,
                    "category_id": SHAPES.index(shape),
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    categories = [{"id": number, "name": shape} for number, shape in enumerate(SHAPES)]
    said = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "boxes.json"
    path.write_text(json.dumps(said) + "\n", encoding="utf-8")
    return path


def _colour(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return rng.randrange(low, high), rng.randrange(low, high), rng.randrange(low, high)


def _touch(one: Edges, other: Edges) -> bool:
    across = one[0] <= other[2] and other[0] <= one[2]
    return across and one[1] <= other[3] and other[1] <= one[3]


def _draw_shape(
    pen: ImageDraw.ImageDraw, name: str, box: Edges, colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    inner = (left, top, right - 1, bottom - 1)
    if name == "circle":
        pen.ellipse(inner, fill=colour)
    elif name == "square":
        pen.rectangle(inner, fill=colour)
    else:
        corners = [((left + right) // 2, top), (left, bottom - 1), (right - 1, bottom - 1)]
        pen.polygon(corners, fill=colour)
