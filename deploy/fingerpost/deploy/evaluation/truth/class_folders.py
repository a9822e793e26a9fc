"""The labels of images by the folders that they are in: `photos/daisy/1.jpg` is a daisy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fingerpost.deploy.file_names import printable_name
from fingerpost.deploy.image_files import ImageFiles
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["ClassFolders", "LabelledImage"]

# How many names a message shows.
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image and the labels that it has."""

    path: str
    labels: frozenset[str]

    @property
    def label(self) -> str:
        """The label, where there is only one."""
        (label,) = self.labels
        return label


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFolders:
    """The images of a folder with one folder for each class.

    Attributes:
        folder: as it was given.
        images: in the order of their paths.
        skipped: what lies there and is not an image, as text; empty if there is nothing.
    """

    folder: Path
    images: list[LabelledImage] = field(repr=False)
    skipped: str = ""

    @classmethod
    def read(cls, folder: Path) -> ClassFolders:
        """Find the images; they are not opened.

        Raises:
            ConfigurationError: no such folder, no class folders in it, or one without images.
        """
        if not folder.is_dir():
            raise ConfigurationError(
                f"there is no folder {str(folder)!r}: give a folder with one folder of images for "
                "each class"
            )
        try:
            classes = sorted(
                each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
            )
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be read: {error.strerror}") from error
        if not classes:
            raise ConfigurationError(
                f"{str(folder)!r} has no class folders: put the images of each class into a folder "
                f"named after its label, such as {folder / 'daisy'}, or give --annotations FILE "
                "(boxes) or --masks DIR"
            )
        images, skipped = [], []
        for each in classes:
            files = ImageFiles([str(each)])
            labels = frozenset((each.name,))
            images += [LabelledImage(path=name, labels=labels) for name in files.names()]
            if files.skipped():
                skipped.append(f"{printable_name(each.name)}: {files.skipped()}")
        return cls(folder=folder, images=images, skipped="; ".join(skipped))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the class folders, sorted."""
        return tuple(sorted({name for each in self.images for name in each.labels}))

    def check_labels(self, model: str, labels: Collection[str]) -> None:
        """Check that the model has each class as a label.

        Raises:
            ConfigurationError: it lacks one.
        """
        unknown = [each for each in self.classes if each not in labels]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ConfigurationError(
                f"the class folder {unknown[0]!r}{more} in {str(self.folder)!r} is not a label of "
                f"model {model}, which has {some_of(labels)}: name each folder after a label, or "
                "move it away"
            )

    def merged(self) -> ClassFolders:
        """With images of equal bytes as one image that has the labels of all their folders.

        Files that cannot be read stay as they are: they fail when they are sent.
        """
        found: dict[str, LabelledImage] = {}
        for each in self.images:
            try:
                with open(each.path, "rb") as file:  # noqa: PTH123 - its name may be no UTF-8
                    key = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                key = each.path
            first = found.get(key, each)
            found[key] = LabelledImage(path=first.path, labels=first.labels | each.labels)
        return ClassFolders(folder=self.folder, images=list(found.values()), skipped=self.skipped)


def some_of(names: Collection[str]) -> str:
    """Some of the names, for a message."""
    names = list(names)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(each) for each in names[:_SHOWN]) + more
