"""What goes into a model of several tensors for one item: decoded images and arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import ImageError, ImageTooLarge, InvalidRequest
from fingerpost.worker.backends.tensors.base import TensorSpec
from fingerpost.worker.images.preprocess import fit_placed, prepare_placed
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.images.placement import Placement

    # An encoded image, or an array without the axis of the batch.
    Part = bytes | memoryview | NDArray[Any]

__all__ = ["AnswerOptions", "TaskItem", "inputs_text", "part_text", "prepare_item"]

# Names come from requests.
_NAME: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What a request asks of its answers.

    Attributes:
        mask: how a segmentation writes its map: `png` or `rle`.
        model_size: whether the map has the model's size, not the image's.
        raw: whether the answer is the model's outputs as they are, whatever its task.
    """

    mask: str = "png"
    model_size: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskItem:
    """One item for a model.

    Attributes:
        values: for each input an array without the axis of the batch: an image uint8
            `[height, width, channels]`, or numbers as the model takes them.
        placement: where the first image lies in it; None where no image was decoded.
        options: what was asked of the answer.
        shapes: items with equal ones can run in one batch.
    """

    values: Mapping[str, NDArray[Any]]
    placement: Placement | None
    options: AnswerOptions
    shapes: tuple[tuple[str, tuple[int, ...], str], ...] = field(init=False)

    def __post_init__(self) -> None:
        # Here, in a decoder's thread: the queue compares them.
        shapes = tuple(
            (name, value.shape, "pixels" if value.dtype == np.uint8 else "")
            for name, value in self.values.items()
        )
        object.__setattr__(self, "shapes", shapes)


def prepare_item(
    parts: Mapping[str, Part],
    images: Mapping[str, ImageInput],
    numbers: Mapping[str, TensorSpec],
    options: AnswerOptions,
    config: ImageConfig,
) -> TaskItem:
    """Decode the images among the parts, and check the arrays.

    Args:
        parts: by the names of the model's inputs.
        images: the inputs that are images.
        numbers: all other inputs.
        options, config: see `TaskItem` and `ImageConfig`.

    Raises:
        InvalidRequest: an input is missing, unknown, or does not fit the model's shape.
        ImageError: an image cannot be decoded.
    """
    _check_names(parts, images, numbers)
    values: dict[str, NDArray[Any]] = {}
    placement = None
    for name, image in images.items():
        part = parts[name]
        if isinstance(part, np.ndarray):
            pixels = _checked_image(part, name, image, config)
            if pixels is part and part.dtype == np.uint8:
                pixels, placed = fit_placed(part, image)
                placement = placement or placed
            values[name] = pixels
        else:
            try:
                values[name], placed = prepare_placed(part, image, config)
            except ImageError as error:
                if len(parts) == 1:
                    raise
                raise type(error)(f"input {name!r}: {error.message}") from None
            placement = placement or placed
    for name, spec in numbers.items():
        values[name] = _checked(_array_of(parts[name], spec), spec)
    return TaskItem(values=values, placement=placement, options=options)


def _check_names(
    parts: Mapping[str, Part],
    images: Mapping[str, ImageInput],
    numbers: Mapping[str, TensorSpec],
) -> None:
    """Raise `InvalidRequest` where an input is missing or unknown."""
    unknown = [name for name in parts if name not in images and name not in numbers]
    missing = [name for name in (*images, *numbers) if name not in parts]
    if not unknown and not missing:
        return
    takes = f"this model takes {inputs_text(images, numbers)}"
    if unknown:
        name = unknown[0]
        raise InvalidRequest(
            f"input {name[:_NAME]!r} ({part_text(parts[name])}) is not one of the model: {takes}"
        )
    raise InvalidRequest(
        f"input {missing[0]!r} is missing; the request has "
        f"{', '.join(f'{name} ({part_text(part)})' for name, part in parts.items()) or 'none'}: "
        f"{takes}"
    )


def inputs_text(images: Mapping[str, ImageInput], numbers: Mapping[str, TensorSpec]) -> str:
    """What a model takes, for people: each input with its type and its shape for an item."""
    found = [f"{name} (image {_image_axes(each)})" for name, each in images.items()]
    found += [f"{name} ({_spec_text(each)})" for name, each in numbers.items()]
    return ", ".join(found)


def part_text(part: Part) -> str:
    """What was sent, for people: its type and its shape."""
    if isinstance(part, np.ndarray):
        return f"{part.dtype.name} {list(part.shape)}"
    return f"{len(part):,} bytes"


def _image_axes(image: ImageInput) -> str:
    return f"[{image.height or '?'}, {image.width or '?'}, {image.channels}]"


def _spec_text(spec: TensorSpec) -> str:
    kind = "text" if spec.dtype == "object" else spec.dtype
    if spec.shape is None:
        return kind
    axes = ", ".join("?" if side is None else str(side) for side in spec.shape[1:])
    return f"{kind} [{axes}]"


def _array_of(part: Part, spec: TensorSpec) -> NDArray[Any]:
    """The part as an array: bytes are one text of a model that takes text."""
    if isinstance(part, np.ndarray):
        return part
    if spec.dtype != "object":
        raise InvalidRequest(
            f"input {spec.name!r} takes {_spec_text(spec)}, not an image ({part_text(part)})"
        )
    text = np.empty((), object)
    text[()] = bytes(part)
    return text.reshape((1,) * max(0, len(spec.shape or (1,)) - 1))


def _checked_image(
    part: NDArray[Any], name: str, wanted: ImageInput, config: ImageConfig
) -> NDArray[Any]:
    """Pixels of any size, or the model's own tensor.

    Raises:
        InvalidRequest: another shape, or numbers that are not finite, or not those of the type.
        ImageTooLarge: more pixels than an image may have.
    """
    if part.dtype == np.uint8 and part.ndim == 3 and part.shape[2] == wanted.channels and part.size:
        if part.shape[0] * part.shape[1] > config.max_pixels or max(part.shape) > config.max_side:
            raise ImageTooLarge(
                f"input {name!r} has the shape {list(part.shape)}, over the limit of "
                f"{config.max_pixels / 1e6:.0f} megapixels or {config.max_side} a side"
            )
        return part
    pixels = wanted.dtype == "uint8"
    shape = (wanted.height, wanted.width, wanted.channels) if pixels else wanted.tensor_shape
    at = 0 if wanted.layout is Layout.NCHW and not pixels else 2
    free = not wanted.height and part.ndim == 3 and part.shape[at] == wanted.channels and part.size
    if part.dtype == object or (part.shape != shape and not free):
        axes = ", ".join(str(side or "?") for side in shape)
        raise InvalidRequest(
            f"input {name!r} is {part_text(part)} for an item: this model takes an encoded image, "
            f"uint8 [height, width, {wanted.channels}], or {wanted.dtype} [{axes}] as it is"
        )
    if pixels:
        return _checked(part, TensorSpec(name=name, dtype="uint8", shape=None))
    with np.errstate(over="ignore"):
        converted = part.astype(np.float32, copy=False)
    if not np.isfinite(converted).all():
        raise InvalidRequest(
            f"input {name!r}, {part_text(part)}, has numbers that are not finite as float32"
        )
    return converted


def _checked(part: NDArray[Any], wanted: TensorSpec) -> NDArray[Any]:
    """The numbers in the model's type. Raises `InvalidRequest` for another shape or other kind."""
    shape = None if wanted.shape is None else wanted.shape[1:]
    if shape is not None and (
        len(shape) != part.ndim
        or any(side not in (None, own) for side, own in zip(shape, part.shape, strict=True))
    ):
        raise InvalidRequest(
            f"input {wanted.name!r} is {part_text(part)} for an item: this model takes "
            f"{_spec_text(wanted)}"
        )
    if (wanted.dtype == "object") != (part.dtype == object):
        raise InvalidRequest(
            f"input {wanted.name!r} is {part_text(part)}: this model takes {_spec_text(wanted)}"
        )
    if wanted.dtype == "object":
        return part
    with np.errstate(invalid="ignore", over="ignore"):
        converted = part.astype(wanted.dtype, copy=False)
    if converted.dtype.kind in "iu" and not np.array_equal(converted, part):
        raise InvalidRequest(
            f"input {wanted.name!r} takes {_spec_text(wanted)}, and some of the numbers of "
            f"{part_text(part)} are not {wanted.dtype}"
        )
    return converted
