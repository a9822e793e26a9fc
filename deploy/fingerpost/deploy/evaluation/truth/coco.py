"""The boxes that are in images, from an annotation file in COCO's form.

The form is that of https://cocodataset.org/#format-data, object detection: `images`, `annotations`
with `bbox` as x, y, width and height in pixels, and `categories`. Masks in it are ignored.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from PIL import Image

from fingerpost.deploy.evaluation.truth.class_folders import some_of
from fingerpost.deploy.evaluation.truth.named_files import named_files
from fingerpost.deploy.evaluation.truth.upright import SIDEWAYS
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["CocoFile", "DrawnBox", "DrawnImage"]

_ORIENTATION = 0x0112


class _Image(msgspec.Struct, frozen=True):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class _Category(msgspec.Struct, frozen=True):
    id: int
    name: str


class _Annotation(msgspec.Struct, frozen=True):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int = 0


class _File(msgspec.Struct, frozen=True):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBox:
    """An object that is in an image.

    Attributes:
        label: its category's name.
        left, top, width, height: its box, in pixels.
        area: of the object, in pixels, by which it counts as small or large.
        crowd: whether it is a group of objects: boxes in it count neither as right nor as wrong.
    """

    label: str
    left: float
    top: float
    width: float
    height: float
    area: float
    crowd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """An image, and all objects in it; perhaps none."""

    path: str
    boxes: tuple[DrawnBox, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoFile:
    """The images of an annotation file.

    Attributes:
        path: the annotation file.
        images: in the order of the file.
        labels: the names of its categories, in the order of the file.
    """

    path: Path
    images: list[DrawnImage] = field(repr=False)
    labels: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, folder: Path, *, upright: bool = False) -> CocoFile:
        """Read the file, and look for its images.

        Args:
            path: the annotation file.
            folder: the images' folder.
            upright: whether boxes are in pixels of the images as viewers show them, with their
                EXIF orientation, and not as they are stored.

        Raises:
            ConfigurationError: it cannot be read, is not of that form, names an image, category or
                box that does not exist, or its boxes are of images of another size.
        """
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_File)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{path} is not an annotation file in COCO's form, JSON with images, annotations "
                f"and categories: {error}"
            ) from error
        _check(path, content)
        names = {each.id: each.name for each in content.categories}
        boxes: dict[int, list[DrawnBox]] = {each.id: [] for each in content.images}
        for each in content.annotations:
            left, top, width, height = each.bbox
            boxes[each.image_id].append(
                DrawnBox(
                    label=names[each.category_id],
                    left=left,
                    top=top,
                    width=width,
                    height=height,
                    area=width * height if each.area is None else each.area,
                    crowd=bool(each.iscrowd),
                )
            )
        names_of = [each.file_name for each in content.images]
        files = named_files(path, names_of, folder, what="file_name")
        images = []
        for image in content.images:
            drawn = DrawnImage(path=str(files[image.file_name]), boxes=tuple(boxes[image.id]))
            _check_size(path, image, drawn, upright=upright)
            images.append(drawn)
        return cls(path=path, images=images, labels=tuple(names.values()))

    def check_labels(self, model: str, labels: Collection[str]) -> None:
        """Check that the model has each category as a label.

        Raises:
            ConfigurationError: it lacks one of which there are boxes.
        """
        used = {box.label for each in self.images for box in each.boxes}
        unknown = [each for each in self.labels if each in used and each not in labels]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ConfigurationError(
                f"{self.path}: the category {unknown[0]!r}{more} is not a label of model {model}, "
                f"which has {some_of(labels)}: rename the category in the file, or give the "
                "model's labels with --labels FILE"
            )


def _check(path: Path, content: _File) -> None:
    """Check what refers to what."""
    for what, values in (
        ("image id", [each.id for each in content.images]),
        ("file_name", [each.file_name for each in content.images]),
        ("category id", [each.id for each in content.categories]),
        ("category", [each.name for each in content.categories]),
    ):
        value, count = next(iter(Counter(values).most_common(1)), ("", 0))
        if count > 1:
            raise ConfigurationError(
                f"{path}: {what} {value!r} is there {count} times: each must be there once"
            )
    if not content.images:
        raise ConfigurationError(f"{path} has no images: add those that the boxes are in")
    images = {each.id for each in content.images}
    categories = {each.id for each in content.categories}
    for number, each in enumerate(content.annotations):
        where = f"{path}: annotations[{number}]"
        if each.image_id not in images:
            raise ConfigurationError(
                f"{where} is of image {each.image_id}, which is not in images: add it, or remove "
                "the annotation"
            )
        if each.category_id not in categories:
            raise ConfigurationError(
                f"{where} has category {each.category_id}, which is not in categories: add it, or "
                "remove the annotation"
            )
        width, height = each.bbox[2:]
        area = 0.0 if each.area is None else each.area
        if not all(map(math.isfinite, (*each.bbox, area))) or min(width, height, area) < 0:
            raise ConfigurationError(
                f"{where} has bbox {list(each.bbox)}: it must be x, y, width and height in pixels, "
                "and none of the last two negative"
            )


def _check_size(path: Path, image: _Image, drawn: DrawnImage, *, upright: bool) -> None:
    """Check that the boxes are of this very file: that they are in it, and the size is the same.

    A file whose header cannot be read is sent all the same: it counts as failed then.
    """
    header = _header(drawn.path)
    if header is None:
        return
    (width, height), orientation = header
    if orientation in SIDEWAYS and upright:
        width, height = height, width
    said = (image.width or width, image.height or height)
    if said != (width, height):
        turned = orientation in SIDEWAYS and said == (height, width)
        how = "leave --upright out" if upright else "give --upright"
        remedy = (
            f"{how}: its EXIF orientation is {orientation}, and viewers turn it"
            if turned
            else "annotate the files that are sent, not larger or smaller ones"
        )
        raise ConfigurationError(
            f"{path}: image {image.file_name!r} is {said[0]} x {said[1]} there, but the file is "
            f"{width} x {height}: {remedy}"
        )
    for box in drawn.boxes:
        across = -box.width <= box.left < width
        if not (across and -box.height <= box.top < height):
            raise ConfigurationError(
                f"{path}: a box of image {image.file_name!r}, {_numbers(box)}, lies outside of it; "
                f"it is {width} x {height}: bbox is x, y, width and height in pixels"
            )


def _numbers(box: DrawnBox) -> str:
    return str([box.left, box.top, box.width, box.height])


def _header(path: str) -> tuple[tuple[int, int], int] | None:
    """Width and height as stored, and the EXIF orientation."""
    try:
        with Image.open(path) as opened:
            return opened.size, int(opened.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever a damaged header makes a decoder raise
        return None
