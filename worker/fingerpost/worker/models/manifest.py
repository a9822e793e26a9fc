"""`model.toml`, the description of a model in its folder.

::

    framework = "tensorflow"          # tensorflow, onnx, torch, caffe or python
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


class Framework(Enum):
    """The framework that runs the model; also read by its other names, such as `pytorch`."""

    TENSORFLOW = "tensorflow"
    ONNX = "onnx"
    TORCH = "torch"
    CAFFE = "caffe"
    PYTHON = "python"

    @classmethod
    def _missing_(cls, value: object) -> Framework | None:
        name = re.sub(r"[^a-z0-9]", "", value.casefold()) if isinstance(value, str) else ""
        known = _OTHER_NAMES.get(name, name)
        return next((each for each in cls if each.value == known), None)


_FRAMEWORKS: Final = " or ".join(
    [", ".join(each.value for each in list(Framework)[:-1]), list(Framework)[-1].value]
)
# Without case, hyphens and dots; Triton's platforms are among them.
_OTHER_NAMES: Final = {
    **dict.fromkeys(
        ("keras", "keras2", "keras3", "savedmodel", "tensorflow1", "tensorflow2",
         "tensorflowgraphdef", "tensorflowkeras", "tensorflowsavedmodel", "tf", "tf1", "tf2",
         "tfkeras"),
        "tensorflow",
    ),
    **dict.fromkeys(("onnxruntime", "onnxruntimeonnx", "ort"), "onnx"),
    **dict.fromkeys(("libtorch", "pytorch", "pytorchlibtorch", "torchscript"), "torch"),
    "opencvcaffe": "caffe",
}  # fmt: skip


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
    """The function that is applied to the model's output."""

    NONE = "none"
    SOFTMAX = "softmax"


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model's input. What is left out is read from the model's own file.

    Attributes:
        name: the name of the tensor.
        height, width: pixels, 1 to 16384.
        channels: 3 (colour) or 1 (gray).
        layout: the order of the axes.
        encoded: the model takes encoded images and decodes them itself.
    """

    name: str | None = None
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    layout: Layout | None = None
    encoded: bool | None = None

    def __post_init__(self) -> None:
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
    """The model's output: `name` is the tensor of scores, where the model has several."""

    name: str | None = None
    activation: Activation = Activation.NONE


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How images are gathered into batches. What is left out is the worker's own setting.

    Attributes:
        max: most images in one batch.
        sizes: the only batch sizes that run, ascending; a smaller batch is padded to the next one.
            For compiled graphs, which are slow at every new shape.
        max_wait_ms: how many milliseconds an image may wait for others.
        latency_ms: keep the milliseconds from submission to result under this, by smaller batches.
    """

    max: int | None = None
    sizes: tuple[int, ...] = ()
    max_wait_ms: float | None = None
    latency_ms: float | None = None

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
        file: the model's file; by default the folder itself, or the one file of a known kind.
        weights: Caffe's `.caffemodel`, where `file` is the prototxt.
        python_class: `package.module:Class`, called `class` in the file.
        labels: the labels file; by default `labels.txt` where it exists.
    """

    framework: Framework
    file: str | None = None
    weights: str | None = None
    python_class: str | None = msgspec.field(default=None, name="class")
    labels: str | None = None
    input: InputSpec = InputSpec()
    preprocessing: Preprocessing = Preprocessing()
    output: OutputSpec = OutputSpec()
    batch: BatchSpec = BatchSpec()

    def __post_init__(self) -> None:
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
            f"{error.message}: expected {_FRAMEWORKS}" + (f"; {wrong[1]} is {hint}" if hint else "")
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
