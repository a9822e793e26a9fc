"""The numbers that are true of images, from a CSV or JSON file.

CSV has the image's name in its first column and its numbers in the others; a first row whose
second cell is not a number names the columns. JSON is an object from names to a number, a list of
numbers, or an object of named ones.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.deploy.evaluation.truth.class_folders import some_of
from fingerpost.deploy.evaluation.truth.named_files import named_files
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["TargetFile", "TargetImage"]

_FORM: Final = (
    "give CSV with the image's name and its numbers in each row (a.jpg,21.5), or JSON such as "
    '{"a.jpg": 21.5}'
)
_Row = tuple[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetImage:
    """An image, and the numbers that are true of it."""

    path: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFile:
    """The images that a file of numbers names.

    Attributes:
        path: the file.
        images: in its order, each with as many numbers.
        labels: the numbers' names; empty where the file has none.
    """

    path: Path
    images: list[TargetImage] = field(repr=False)
    labels: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, folder: Path) -> TargetFile:
        """Read the file, `.json` or else CSV, and look for its images.

        Args:
            path: the file.
            folder: the images' folder.

        Raises:
            ConfigurationError: it cannot be read, is not of one of the forms, has a row without a
                finite number, names an image twice, or one that is missing or outside the folder.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is not UTF-8 text: {_FORM}") from error
        read = _json if path.suffix.lower() == ".json" else _csv
        labels, rows = read(path, text)
        if not rows:
            raise ConfigurationError(f"{path} names no image: {_FORM}")
        found: dict[str, tuple[float, ...]] = {}
        for name, cells in rows:
            if name in found:
                raise ConfigurationError(f"{path}: {name!r} is there twice: give each image once")
            found[name] = tuple(_number(path, name, each) for each in cells)
            count = len(labels) or len(next(iter(found.values())))
            if len(found[name]) != count or not count:
                raise ConfigurationError(
                    f"{path}: {name!r} has {len(found[name])} numbers, and others have {count}: "
                    "give as many for each image"
                )
        files = named_files(path, found, folder, what="image")
        images = [
            TargetImage(path=str(files[name]), values=values) for name, values in found.items()
        ]
        return cls(path=path, images=images, labels=labels)

    def places(self, model: str, labels: Sequence[str], count: int) -> list[int]:
        """Where the numbers of the file stand in those of the model.

        Args:
            model: its name.
            labels: the names of its numbers; empty where they have none.
            count: how many numbers it gives.

        Raises:
            ConfigurationError: it has no number of such a name, or another count of them.
        """
        if self.labels and labels:
            unknown = [each for each in self.labels if each not in labels]
            if unknown:
                raise ConfigurationError(
                    f"{self.path}: the column {unknown[0]!r} is not a value of model {model}, "
                    f"which has {some_of(labels)}: rename or remove the column"
                )
            return [list(labels).index(each) for each in self.labels]
        given = len(self.images[0].values)
        if given != count:
            names = f" ({some_of(labels)}): name the columns after them" if labels else ""
            raise ConfigurationError(
                f"{self.path} has {given} numbers for each image, and model {model} gives "
                f"{count}{names or ': give as many'}"
            )
        return list(range(count))


def _csv(path: Path, text: str) -> tuple[tuple[str, ...], list[_Row]]:
    try:
        table = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise ConfigurationError(f"{path} is not CSV: {error}: {_FORM}") from error
    labels: tuple[str, ...] = ()
    if table and len(table[0]) > 1 and not _is_number(table[0][1]):
        labels = tuple(each.strip() for each in table.pop(0)[1:])
        _check_labels(path, labels)
    return labels, [(row[0].strip(), row[1:]) for row in table]


def _json(path: Path, text: str) -> tuple[tuple[str, ...], list[_Row]]:
    try:
        content = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON of targets: {error}: {_FORM}") from error
    first = next(iter(content.values()), None)
    labels = tuple(first) if isinstance(first, dict) else ()
    _check_labels(path, labels)
    return labels, list(_rows(path, content, labels))


def _rows(path: Path, content: dict[str, Any], labels: tuple[str, ...]) -> Iterator[_Row]:
    for name, value in content.items():
        if isinstance(value, dict) != bool(labels) or (labels and value.keys() != set(labels)):
            raise ConfigurationError(
                f"{path}: {name!r} has other names than the first image, which has "
                f"{some_of(labels) if labels else 'none'}: give the same for each"
            )
        if labels:
            yield name, [value[each] for each in labels]
        else:
            yield name, value if isinstance(value, list) else [value]


def _check_labels(path: Path, labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels) or "" in labels:
        raise ConfigurationError(
            f"{path} names the numbers {some_of(labels)}: each needs a name of its own"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, name: str, value: Any) -> float:
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(
            f"{path}: {name!r} has {str(value)[:40]!r}, which is not a finite number"
        )
    return number
