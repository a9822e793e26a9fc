"""The images that a load test sends."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["drawn_image", "read_images"]

_SIZE: Final = (480, 360)
_MOST_BYTES: Final = 256 << 20


def drawn_image(seed: int = 0) -> bytes:
    """A generated JPEG of 480 x 360 pixels and some 20 KB, the same for the same seed.

    It shows shapes on a gradient. `fingerpost.worker.tools.sample_images` would need NumPy.
    """
    rng = random.Random(seed)
    image = Image.frombytes("RGB", (5, 4), rng.randbytes(60)).resize(_SIZE)
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle) * 4:
        left, right = sorted(rng.sample(range(_SIZE[0]), 2))
        top, bottom = sorted(rng.sample(range(_SIZE[1]), 2))
        shape((left, top, right, bottom), fill=tuple(rng.randbytes(3)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def read_images(sources: Iterable[Path]) -> list[bytes]:
    """The contents of files, and of all images in folders and their subfolders, in order.

    They are kept in memory, so that the disk does not affect the measurement.

    Raises:
        ConfigurationError: a file cannot be read, a folder has no images, or all images together
            have more than 256 MB.
    """
    images, total = [], 0
    for path in _files(sources):
        try:
            images.append(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"image {path} cannot be read: {error.strerror}") from error
        total += len(images[-1])
        if total > _MOST_BYTES:
            raise ConfigurationError(
                f"the images have more than {_MOST_BYTES >> 20} MB, and are kept in memory: give "
                "fewer of them"
            )
    return images


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for source in sources:
        if not source.is_dir():
            yield source
            continue
        files = sorted(each for each in source.rglob("*") if each.suffix.lower() in known)
        if not files:
            raise ConfigurationError(f"there are no images in {source}: give a folder with images")
        yield from files
