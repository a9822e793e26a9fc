"""The labelled images of a training run: found, decoded once as a check, and split in two.

Only file names are kept, so that a data set may be larger than memory; training reads each image
again when it needs it.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError, ImageError
from fingerpost.worker.images import decode
from fingerpost.worker.training.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CHANNELS",
    "Dataset",
    "Sample",
    "SkippedFile",
    "find_classes",
    "read_image",
    "scan",
    "split",
]

CHANNELS = 3
"""Gray images become RGB with three equal channels: every backbone takes RGB, and the workers then
have one way of decoding for all models."""

_FEWEST = 2  # one to train on, one to validate with


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image that can be decoded.

    Attributes:
        path: its file.
        label: index of its class in `Dataset.labels`.
        side: the mean of its height and width in pixels.
    """

    path: Path
    label: int
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file in a class folder that is not a usable image, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a folder of class folders holds.

    Attributes:
        labels: the class folders' names, sorted.
        images: sorted by label and path.
        skipped: files left out, in the same order.
    """

    labels: tuple[str, ...]
    images: tuple[Sample, ...]
    skipped: tuple[SkippedFile, ...]

    @property
    def median_side(self) -> int:
        """Median over the images of the mean of height and width, in pixels."""
        return round(statistics.median(image.side for image in self.images))


def read_image(path: Path, size: int | None) -> NDArray[np.uint8]:
    """Decode a file as the workers will: uint8 `[size, size, 3]` in 0..255, by `images.decode`.

    With `size` None the image keeps its own height and width.

    Raises:
        ImageError: not an image, damaged, or over `ImageConfig`.
        OSError: the file cannot be read.
    """
    return decode(path.read_bytes(), size=None if size is None else (size, size), channels=CHANNELS)


def scan(images: Path, progress: Progress | None = None) -> Dataset:
    """Find the classes in `images`, and open and fully decode every file beneath them once.

    The content of a file counts, not its name; files that cannot be decoded are listed in
    `Dataset.skipped`. Hidden files and folders (`.DS_Store`) are ignored, and so are files beside
    the class folders (a licence, a readme).

    Raises:
        ConfigurationError: no such folder, fewer than 2 classes, a class with fewer than 2 usable
            images, or a folder whose name cannot be a line of `labels.txt`.
    """
    progress = progress or SilentProgress()
    folders = find_classes(images)
    files = [(path, label) for label, folder in enumerate(folders) for path in _files(folder)]
    found: list[Sample] = []
    skipped: list[SkippedFile] = []
    progress.begin("reading images", len(files))
    # Pillow decodes outside the interpreter lock, so threads use the other cores.
    with ThreadPoolExecutor() as pool:
        try:
            for item in pool.map(lambda file: _inspect(*file), files):
                found.append(item) if isinstance(item, Sample) else skipped.append(item)
                progress.advance(1)
        except BaseException:  # such as an interrupt: do not read the rest first
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _check_counts(folders, found, skipped)
    return Dataset(
        labels=tuple(folder.name for folder in folders),
        images=tuple(found),
        skipped=tuple(skipped),
    )


def split(dataset: Dataset, share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation images, in that order.

    Of every class `share` goes to validation, rounded, but at least one image to each side. The
    same images, share and seed give the same split on every machine.
    """
    rng = random.Random(seed)
    training: list[Sample] = []
    validation: list[Sample] = []
    for label in range(len(dataset.labels)):
        members = [image for image in dataset.images if image.label == label]
        rng.shuffle(members)
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        validation += members[:count]
        training += members[count:]
    return training, validation


def find_classes(images: Path) -> list[Path]:
    """The folders of the classes in `images`, in the order of their names; no file is read.

    Raises:
        ConfigurationError: no such folder, fewer than 2 classes, or a folder whose name cannot be a
            line of `labels.txt`.
    """
    if not images.is_dir():
        raise ConfigurationError(
            f"no folder {str(images)!r}: give a folder with one folder of images per class"
        )
    try:
        folders = sorted(
            entry for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise ConfigurationError(f"the folder {str(images)!r} cannot be read: {error}") from error
    if len(folders) < 2:
        names = ", ".join(repr(folder.name) for folder in folders) or "none"
        raise ConfigurationError(
            f"{str(images)!r} has fewer than 2 class folders ({names}): put the images of each "
            "class into a folder of its own"
        )
    for folder in folders:
        _check_label(folder.name)
    return folders


def _check_label(name: str) -> None:
    """Check that a name can be one line of a UTF-8 file, and is read back unchanged."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"the class folder {name!r} has a name that is not UTF-8: rename it"
        ) from error
    if name.splitlines() != [name] or name != name.strip():
        raise ConfigurationError(
            f"the class folder {name!r} has a line break in its name, or a blank at one end of "
            "it, but labels.txt holds one label per line: rename it"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _inspect(path: Path, label: int) -> Sample | SkippedFile:
    try:
        height, width, _ = read_image(path, None).shape
    except (ImageError, OSError) as error:
        reason = error.message if isinstance(error, ImageError) else error.strerror or str(error)
        return SkippedFile(path=path, reason=reason)
    return Sample(path=path, label=label, side=round((height + width) / 2))


def _check_counts(folders: list[Path], found: list[Sample], skipped: list[SkippedFile]) -> None:
    counts = Counter(image.label for image in found)
    for label, folder in enumerate(folders):
        if counts[label] >= _FEWEST:
            continue
        bad = [item for item in skipped if item.path.is_relative_to(folder)]
        hint = f"; {len(bad)} skipped, such as {bad[0].path.name!r}: {bad[0].reason}" if bad else ""
        raise ConfigurationError(
            f"the class folder {str(folder)!r} has {counts[label]} usable images, and each class "
            f"needs at least {_FEWEST}: add some, or remove the folder{hint}"
        )
