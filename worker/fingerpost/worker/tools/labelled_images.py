"""Images of a folder, with the class that the folder which holds each of them names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.worker.tools.sample_images import find_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["LabelledImage", "labelled_images", "thinned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image's file.

    Attributes:
        path: the file.
        truth: the index of its class in the model's labels; None where no folder says it.
    """

    path: Path
    truth: int | None


def labelled_images(folder: Path, labels: Sequence[str]) -> list[LabelledImage]:
    """All images in `folder` and below it, sorted by their paths.

    The folder directly in `folder` that holds an image names its class, if it is one of `labels`.

    Raises:
        ConfigurationError: there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder: give a folder of images")
    classes = {label: index for index, label in enumerate(labels)}
    found = []
    for path in find_images(folder):
        parts = path.relative_to(folder).parts
        truth = classes.get(parts[0]) if len(parts) > 1 else None
        found.append(LabelledImage(path=path, truth=truth))
    return found


def thinned(images: Sequence[LabelledImage], most: int) -> list[LabelledImage]:
    """At most `most` of them, evenly spread, so that all classes have their share."""
    count = min(most, len(images))
    return [images[index * len(images) // count] for index in range(count)]
