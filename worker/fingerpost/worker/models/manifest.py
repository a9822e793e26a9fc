"""`model.toml`, the description of a model in its folder.

::

    framework = "tensorflow"          # one of `Framework`
    task = "classification"           # what it answers; see `tasks`
    file = "model.keras"              # relative to the folder; a SavedModel needs none
    labels = "labels.txt"             # one label a line, in the order of the scores

    [input]
    name = "input:0"                  # the tensor, where the model has several
    height = 224
    width = 224
    channels = 3

    [preprocessing]
    resize = "crop"                   # stretch, crop (short side, then centre) or pad
    mean = [123.675, 116.28, 103.53]  # of values 0..255, in the order of the channels
    std = [58.395, 57.12, 57.375]

    [output]
    activation = "softmax"            # the model gives logits

    [batch]
    max = 32

Every key but `framework` may be left out. Shapes, types and names that the model's own file has are
read from there, and must agree with what is written here.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.basics.config_file import decode_toml, read_config
from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.framework import FRAMEWORK_NAMES, Framework
from fingerpost.worker.models.runtime import RuntimeSpec
from fingerpost.worker.models.tasks import (
    DetectionLayout,
    DetectionSpec,
    InputTensor,
    SegmentationSpec,
    Task,
)
from fingerpost.worker.models.unread import why_not_read_framework

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MANIFEST",
    "Activation",
    "BatchSpec",
    "ChannelOrder",
    "Filter",
    "Framework",
    "InputSpec",
    "Layout",
    "Manifest",
    "OutputSpec",
    "Preprocessing",
    "Resize",
    "encode_manifest",
    "read_manifest",
    "write_manifest",
]

MANIFEST: Final = "model.toml"


class Layout(Enum):
    """The order of a batch's axes: images, rows, columns, channels, or channels before rows."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class ChannelOrder(Enum):
    """The order of the color channels; OpenCV and Caffe put blue first."""

    RGB = "RGB"
    BGR = "BGR"


class Resize(Enum):
    """How an image is resized to the model's size.

    `stretch` changes the aspect ratio (TensorFlow's retraining tutorial, Keras' `image_size`);
    `crop` keeps it, scales the short side and cuts out the middle (torchvision's evaluation, most
    ImageNet models); `pad` keeps it, scales the long side and fills the rest with gray (detectors).
    """

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"


class Filter(Enum):
    """How pixels are averaged when an image is resized; all but `nearest` with antialiasing."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Activation(Enum):
    """The function that is applied to the model's output, to each image's row.

    `softmax` makes probabilities of logits of which one counts, `sigmoid` of logits that each count
    by themselves, and `l2` a vector of length 1 of an embedding.
    """

    NONE = "none"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    L2 = "l2"


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model's input. What is left out is read from the model's own file.

    Attributes:
        name: the name of the tensor.
        height, width: pixels, 1 to 16384.
        channels: 3 (colour) or 1 (gray).
        layout: the order of the axes.
        encoded: the model takes encoded images and decodes them itself.
        multiple: where the model takes images of any size, each side is filled up to a multiple of
            this, 1 to 1024; images of equal sides run in one batch.
        signature: of a SavedModel; by default the only one, or `serving_default`.
    """

    name: str | None = None
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    layout: Layout | None = None
    encoded: bool | None = None
    multiple: int | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        if self.multiple is not None and not 1 <= self.multiple <= 1024:
            raise ValueError(f"input.multiple is {self.multiple}: it must be 1 to 1024")
        for key in ("height", "width"):
            side = getattr(self, key)
            if side is not None and not 1 <= side <= 16384:
                raise ValueError(f"input.{key} is {side}: it must be 1 to 16384 pixels")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"input.channels is {self.channels}: it must be 1 (gray) or 3 (RGB)")


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From decoded pixels, 0..255, to what the model was trained on: `(pixel - mean) / std`.

    Attributes:
        resize, filter: how an image is resized to the model's size.
        crop_fraction: with `crop`, the share of the scaled image's side that is cut out; 0.875 is
            224 of 256, as most ImageNet models are evaluated.
        order: the channels' order; `mean` and `std` follow it.
        mean, std: one number, or one per channel, of values 0..255. `std = 255` gives 0..1,
            `mean = 127.5` with `std = 127.5` gives -1..1.
    """

    resize: Resize = Resize.STRETCH
    filter: Filter = Filter.BILINEAR
    crop_fraction: float = 1.0
    order: ChannelOrder = ChannelOrder.RGB
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.crop_fraction <= 1:
            raise ValueError(
                f"preprocessing.crop_fraction is {self.crop_fraction}: it must be 0.1 to 1"
            )
        for key in ("mean", "std"):
            value = getattr(self, key)
            numbers = value if isinstance(value, tuple) else (value,)
            if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
                raise ValueError(
                    f"preprocessing.{key} is {value}: it must be one number, or one per channel"
                )
            if key == "std" and 0 in numbers:
                raise ValueError("preprocessing.std has a 0, which would divide by zero")


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model's output.

    Attributes:
        name: the tensor of scores, where the model has several.
        activation: see `Activation`.
        threshold: from which score on a label of a `multilabel` model is given, 0 to 1; by default
            0.5.
    """

    name: str | None = None
    activation: Activation = Activation.NONE
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"output.threshold is {self.threshold}: it must be 0 to 1")


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How images are gathered into batches. What is left out is the worker's own setting.

    Attributes:
        max: most images in one batch.
        sizes: the only batch sizes that run, ascending; a smaller batch is padded to the next one.
            For compiled graphs, which are slow at every new shape.
        max_wait_ms: how many milliseconds an image may wait for others.
        axis: whether the first axis of a model's tensors is the items; for the tasks detection,
            segmentation and tensors. By default it is, unless its image has three axes.
        latency_ms: keep the milliseconds from submission to result under this, by smaller batches.
    """

    max: int | None = None
    sizes: tuple[int, ...] = ()
    max_wait_ms: float | None = None
    latency_ms: float | None = None
    axis: bool | None = None

    def __post_init__(self) -> None:
        if self.max is not None and not 1 <= self.max <= 4096:
            raise ValueError(f"batch.max is {self.max}: it must be 1 to 4096")
        if list(self.sizes) != sorted(set(self.sizes)) or (self.sizes and self.sizes[0] < 1):
            raise ValueError(f"batch.sizes is {list(self.sizes)}: it must ascend from 1 or more")
        if self.sizes and self.max is not None and self.sizes[-1] != self.max:
            raise ValueError(f"batch.sizes ends with {self.sizes[-1]}, but batch.max is {self.max}")
        for key in ("max_wait_ms", "latency_ms"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"batch.{key} is {value}: it must be 0 or more")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of `model.toml`. Paths are relative to its folder, and stay inside it.

    Attributes:
        framework: the framework that runs the model.
        task: what it answers.
        file: the model's file; by default the folder itself, or the one file of a known kind.
        weights: Caffe's `.caffemodel`, where `file` is the prototxt, or OpenVINO's `.bin`.
        python_class: `package.module:Class`, called `class` in the file.
        labels: the labels file; by default `labels.txt` where it exists.
        inputs: what the model's file does not say of its inputs, by their names.
        runtime: how it is run.
    """

    framework: Framework
    task: Task = Task.CLASSIFICATION
    file: str | None = None
    weights: str | None = None
    python_class: str | None = msgspec.field(default=None, name="class")
    labels: str | None = None
    input: InputSpec = InputSpec()
    preprocessing: Preprocessing = Preprocessing()
    output: OutputSpec = OutputSpec()
    batch: BatchSpec = BatchSpec()
    inputs: dict[str, InputTensor] = {}
    detection: DetectionSpec | None = None
    segmentation: SegmentationSpec | None = None
    runtime: RuntimeSpec = RuntimeSpec()

    def __post_init__(self) -> None:
        self._check_task()
        self.runtime.check(self.framework)
        for key in ("file", "weights", "labels"):
            value = getattr(self, key)
            if value is None:
                continue
            path = PurePath(value)
            if path.is_absolute() or ".." in path.parts or not value:
                raise ValueError(f"{key} is {value!r}: it must be a path inside the model's folder")
        if (self.python_class is None) == (self.framework is Framework.PYTHON):
            raise ValueError(
                "class is required with framework 'python', and only there: 'package.module:Class'"
            )

    def _check_task(self) -> None:
        """Raise `ValueError` for settings that belong to another task."""
        output = self.output
        wanted = _ACTIVATIONS.get(output.activation, self.task)
        if wanted is not self.task:
            raise ValueError(
                f"output.activation is {output.activation.value!r}, which is for task "
                f"{wanted.value!r}, but task is {self.task.value!r}"
            )
        for key, given, owner in (
            ("output.threshold", output.threshold, Task.MULTILABEL),
            ("[detection]", self.detection, Task.DETECTION),
            ("[segmentation]", self.segmentation, Task.SEGMENTATION),
        ):
            if given is not None and self.task is not owner:
                raise ValueError(
                    f"{key} is for task {owner.value!r}, but task is {self.task.value!r}"
                )
        if self.task is Task.DETECTION and self.detection is None:
            layouts = ", ".join(each.value for each in DetectionLayout)
            raise ValueError(
                f"task 'detection' needs [detection] with layout, one of {layouts}: how the "
                "model's boxes, scores and classes lie"
            )


_ACTIVATIONS: Final = {
    Activation.SOFTMAX: Task.CLASSIFICATION,
    Activation.SIGMOID: Task.MULTILABEL,
    Activation.L2: Task.EMBEDDING,
}


def read_manifest(path: Path) -> Manifest:
    """Read a `model.toml`.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, has an unknown key, or a value that is
            not valid.
    """
    try:
        content = read_config(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode_toml(content, Manifest, path)
    except ConfigurationError as error:
        wrong = re.search(r"Invalid enum value '(.*)' - at `\$\.framework`", error.message)
        if wrong is None:
            raise
        hint = why_not_read_framework(wrong[1])
        raise ConfigurationError(
            f"{error.message}: expected {FRAMEWORK_NAMES}"
            + (f"; {wrong[1]} is {hint}" if hint else "")
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a `model.toml` with every key that has a value, also the default values.

    So a later release with other defaults reads the same, and `read_manifest` returns an equal
    manifest.
    """
    path.write_text(encode_manifest(manifest), encoding="utf-8")


def encode_manifest(manifest: Manifest) -> str:
    """The text of a `model.toml`; see `write_manifest`."""
    return msgspec.toml.encode(_without_empty(msgspec.to_builtins(manifest))).decode()


def _without_empty(table: dict[str, Any]) -> dict[str, Any]:
    """The table without values that are None or empty; TOML has no null."""
    inner = {
        key: _without_empty(value) if isinstance(value, dict) else value
        for key, value in table.items()
    }
    return {key: value for key, value in inner.items() if value not in (None, {}, ())}
