"""Which of a model's inputs are images, and how its tensors are batched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.inputs import image_input
from fingerpost.worker.models.manifest import Framework, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fingerpost.worker.backends.base import ImageInput
    from fingerpost.worker.backends.tensors.base import TensorSpec
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["ModelInputs", "model_inputs"]

_PIXELS: Final = frozenset({"uint8", "float16", "float32", "float64"})
# Channels may come first or last there.
_LAYOUTS: Final = {
    Framework.ONNX: None,
    Framework.OPENVINO: None,
    Framework.LITERT: None,
    Framework.TORCH: Layout.NCHW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """What a model takes.

    Attributes:
        images: the inputs that are images.
        numbers: all others.
        batched: whether the first axis of its tensors is the items.
        batch: how many items it takes at once; None for any number.
    """

    images: Mapping[str, ImageInput]
    numbers: Mapping[str, TensorSpec]
    batched: bool
    batch: int | None

    @property
    def any_size(self) -> bool:
        """Whether items may have other shapes than each other."""
        return not all(each.height for each in self.images.values()) or any(
            each.shape is None or None in each.shape[1:] for each in self.numbers.values()
        )

    @property
    def axes(self) -> dict[str, int]:
        """How many axes an item of each input has, where that is known."""
        known = {
            name: len(each.shape) - 1
            for name, each in self.numbers.items()
            if each.shape is not None
        }
        return {**dict.fromkeys(self.images, 3), **known}


def model_inputs(files: ModelFiles, specs: Sequence[TensorSpec]) -> ModelInputs:
    """Tell images and numbers apart, by `model.toml` and by the shapes that the model has.

    Raises:
        ConfigurationError: `model.toml` names an input that the model does not have, or an image
            has a shape that cannot be one.
    """
    manifest = files.manifest
    known = {each.name for each in specs}
    for name in (*manifest.inputs, *([manifest.input.name] if manifest.input.name else [])):
        if name not in known:
            raise ConfigurationError(
                f"model {files.name} has no input {name!r}; it has {', '.join(sorted(known))}"
            )
    specs = [_declared(files, each) for each in specs]
    chosen = {each.name for each in specs if _is_image(files, each, alone=len(specs) == 1)}
    batched = manifest.batch.axis
    if batched is None:
        batched = all(
            each.shape is None or len(each.shape) != 3 for each in specs if each.name in chosen
        )
    images: dict[str, ImageInput] = {}
    numbers: dict[str, TensorSpec] = {}
    sizes = set()
    for each in specs:
        shape = each.shape
        if shape is not None and not batched:
            shape = (None, *shape)
        elif shape:
            sizes.add(shape[0])
        if each.name in chosen:
            images[each.name] = _image(files, each, shape)
        else:
            numbers[each.name] = replace(each, shape=shape)
    fixed = {size for size in sizes if size is not None}
    if len(fixed) > 1:
        raise ConfigurationError(
            f"model {files.name} takes {' and '.join(map(str, sorted(fixed)))} items at once in "
            "different inputs: set batch.axis = false in model.toml if their first axis is not "
            "that of a batch"
        )
    return ModelInputs(
        images=images, numbers=numbers, batched=batched, batch=next(iter(fixed), None)
    )


def _declared(files: ModelFiles, spec: TensorSpec) -> TensorSpec:
    """The input with what `[inputs.NAME]` says of it where its file says nothing."""
    said = files.manifest.inputs.get(spec.name)
    if said is None:
        return spec
    shape = spec.shape
    if said.shape is not None and shape is None:
        sides = tuple(None if side < 0 else side for side in said.shape)
        shape = sides if files.manifest.batch.axis is False else (None, *sides)
    return replace(spec, dtype=said.dtype or spec.dtype, shape=shape)


def _is_image(files: ModelFiles, spec: TensorSpec, *, alone: bool) -> bool:
    said = files.manifest.inputs.get(spec.name)
    if said is not None and said.image is not None:
        return said.image
    if files.manifest.input.name == spec.name:
        return True
    if spec.dtype not in _PIXELS or (said is not None and said.shape is not None):
        return False
    if spec.shape is None:
        return alone
    axes = spec.shape[-3:]
    return len(spec.shape) in (3, 4) and any(side in (1, 3) for side in (axes[0], axes[-1]))


def _image(files: ModelFiles, spec: TensorSpec, shape: tuple[int | None, ...] | None) -> ImageInput:
    framework = files.manifest.framework
    layout = _LAYOUTS.get(framework, Layout.NHWC)
    if shape is None and layout is not None:  # of any size, unless model.toml says one
        found = files.manifest.input.layout or layout
        channels = files.manifest.input.channels or 3
        shape = (None, None, None, channels)
        if found is Layout.NCHW:
            shape = (None, channels, None, None)
    return image_input(
        files, shape, spec.dtype, layout=layout, name=f"input {spec.name!r}", free=True
    )
