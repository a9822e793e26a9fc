"""Combines what a model's own file and its `model.toml` say about its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.models.manifest import Preprocessing

__all__ = ["encoded_input", "image_input"]

_DTYPES: Final = ("uint8", "float16", "float32", "float64")


def image_input(
    files: ModelFiles,
    shape: Sequence[int | None] | None,
    dtype: str,
    *,
    layout: Layout | None,
    name: str = "input",
    free: bool = False,
) -> ImageInput:
    """The input of a model that takes pixels.

    The layout is the one in `model.toml`, else the one that the shape implies (3 or 1 channels,
    first or last), else `layout`.

    Args:
        files: the model; its manifest fills in what the shape leaves open.
        shape: the axes of the input, the batch first; None for an axis of any length. None for
            all where the file does not even say how many: then the manifest must.
        dtype: NumPy's name of its type.
        layout: the default of the framework; None where it has none and the manifest must name it.
        name: the name of the input in error messages.
        free: whether images may keep their own size, where neither says one: then it is 0 x 0.

    Raises:
        ConfigurationError: the model does not take images, or its file and its manifest
            contradict each other.
    """
    declared = files.manifest.input
    where = f"model {files.name}"
    if shape is None:
        shape = _declared_shape(files, name, layout)
    if len(shape) != 4 or dtype not in _DTYPES:
        axes = ", ".join("?" if side is None else str(side) for side in shape)
        raise ConfigurationError(
            f"{where}: its {name} is {dtype} [{axes}]; expected pixels [N, height, width, "
            f"channels] or [N, channels, height, width] of {', '.join(_DTYPES)}"
        )
    if declared.encoded:
        raise ConfigurationError(f"{where}: input.encoded is true, but the model takes {dtype}")
    found = declared.layout or _layout_of(shape) or layout
    if found is None:
        raise ConfigurationError(
            f"{where}: its input is {list(shape)}, which may have its channels first or last: "
            'set input.layout = "NCHW" or "NHWC" in model.toml, or --input-layout'
        )
    batch, *rest = shape
    channels, height, width = rest if found is Layout.NCHW else (rest[2], rest[0], rest[1])
    if channels not in (1, 3, None):
        raise ConfigurationError(
            f"{where} takes {channels} channels ({found.value}): expected 1 (gray) or 3 (RGB)"
        )
    sides = {}
    for key, own in (("height", height), ("width", width), ("channels", channels)):
        wanted = getattr(declared, key)
        if None not in (wanted, own) and wanted != own:
            raise ConfigurationError(
                f"{where}: input.{key} is {wanted} in model.toml (or --image-size, or "
                f"image_size=), but the model takes {own}"
            )
        sides[key] = own or wanted
    if free and not sides["height"] and not sides["width"]:
        sides["height"] = sides["width"] = 0
    elif not sides["height"] or not sides["width"]:
        raise ConfigurationError(
            f"{where} does not say which image size it takes: choose one with --image-size, with "
            "input.height and input.width in model.toml, or with image_size= for a Python object"
        )
    channels = sides["channels"] or 3
    return ImageInput(
        height=sides["height"] or 0,
        width=sides["width"] or 0,
        channels=channels,
        layout=found,
        dtype=dtype,
        batch=batch,
        multiple=declared.multiple or 1,
        preprocessing=_preprocessing(files, channels, scaled=dtype != "uint8"),
    )


def encoded_input(files: ModelFiles, batch: int | None, *, check: bool = True) -> ImageInput:
    """The input of a model that decodes images itself.

    Args:
        files: the model.
        batch, check: see `ImageInput.batch` and `check_encoded`.

    Raises:
        ConfigurationError: `model.toml` contradicts it.
    """
    if files.manifest.input.encoded is False:
        raise ConfigurationError(
            f"model {files.name}: input.encoded is false, but the model takes encoded images"
        )
    preprocessing = _preprocessing(files, 3, scaled=False)
    return ImageInput(
        encoded=True, check_encoded=check, dtype="object", batch=batch, preprocessing=preprocessing
    )


def _declared_shape(files: ModelFiles, name: str, layout: Layout | None) -> tuple[int | None, ...]:
    """The shape that the manifest gives to an input of unknown rank."""
    declared = files.manifest.input
    found = declared.layout or layout
    if not (declared.height and declared.width and found):
        raise ConfigurationError(
            f"model {files.name}: its file does not say the shape of its {name}: write height, "
            "width, channels (3 or 1) and layout (NHWC or NCHW) under [input] in model.toml, as "
            "it was trained (--image-size gives height and width, --input-layout the layout)"
        )
    sides, channels = (declared.height, declared.width), declared.channels or 3
    return (None, channels, *sides) if found is Layout.NCHW else (None, *sides, channels)


def _layout_of(shape: Sequence[int | None]) -> Layout | None:
    first, last = (shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        return None
    return Layout.NCHW if first else Layout.NHWC


def _preprocessing(files: ModelFiles, channels: int, *, scaled: bool) -> Preprocessing:
    """The preprocessing of the manifest, checked against the model's type and channels."""
    preprocessing = files.manifest.preprocessing
    if not scaled and (preprocessing.mean, preprocessing.std) != (0.0, 1.0):
        if not files.inferred:
            raise ConfigurationError(
                f"model {files.name} takes uint8 or encoded images, which are not scaled: remove "
                "mean and std from model.toml"
            )
        return msgspec.structs.replace(preprocessing, mean=0.0, std=1.0)
    for key in ("mean", "std"):
        value = getattr(preprocessing, key)
        if isinstance(value, tuple) and len(value) not in (1, channels):
            raise ConfigurationError(
                f"model {files.name}: preprocessing.{key} has {len(value)} numbers, but the model "
                f"takes {channels} channel"
            )
    return preprocessing
