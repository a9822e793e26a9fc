"""What a foreign worker's metadata says of its protocol and of its model's input. Pure."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from fingerpost.errors import InvalidInstance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.registry import Instance

__all__ = ["TASKS", "ForeignModel", "TensorSpec"]

TASKS: Final = (
    "classification", "embedding", "regression", "detection", "tensors", "json"
)  # fmt: skip
"""What a foreign worker may answer, the default first."""

# Of a URL, so that they can end no header and no line.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9._:/ -]{1,128}", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,4})(?:x([0-9]{1,4})(?:x([13]))?)?", re.ASCII)
_PATHS: Final = {
    "form": "/",
    "torchserve": "/predictions/{model}{/version}",
    "v2": "/v2/models/{model}{/versions/}/infer",
    "tfserving": "/v1/models/{model}{/versions/}:predict",
}
_INPUTS: Final = {"v2": "image"}
_MOST_LABELS: Final = 10_000


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that a model takes for an image: `(pixel * scale - mean) / std` of each channel.

    Attributes:
        height, width: the size to which the image is stretched, in pixels.
        channels: 3 for RGB, 1 for gray.
        first: whether the channels come first (NCHW), as with PyTorch, or last (NHWC).
        dtype: `float32` or `uint8`.
        scale: for every pixel value, which is 0 to 255.
        mean, std: one number for each channel.
    """

    height: int
    width: int
    channels: int
    first: bool
    dtype: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> list[int]:
        """The shape of one image, with the axis of the batch."""
        if self.first:
            return [1, self.channels, self.height, self.width]
        return [1, self.height, self.width, self.channels]


class ForeignModel(msgspec.Struct, frozen=True, kw_only=True):
    """How images are sent to one foreign worker, and how its answers are read.

    Attributes:
        protocol: one of `PROTOCOLS`.
        path: of the request.
        version: of the model; empty where it is not known.
        field: `form`: the name of the multipart field.
        input, output: the names of tensors; empty for the only one there is.
        signature: `tfserving`: the signature; empty for the default one.
        binary: `v2`: the tensor is sent as bytes behind the JSON (Triton's extension).
        labels: of the scores; empty where the worker says none.
        logits: the scores are logits, to which softmax is applied.
        tensor: None sends the image as it is.
        task: what the worker answers: one of `TASKS`.
        detection: the outputs with boxes, scores and classes.
        box_format: `xyxy` (left, top, right, bottom), `yxyx`, or `center` (x, y, width, height).
        box_unit: `pixel`, of the image that the model gets, or `share` of its sides.
        first_class: the number of the first label.
    """

    protocol: str
    path: str
    version: str = ""
    field: str = "data"
    input: str = ""
    output: str = ""
    signature: str = ""
    binary: bool = False
    labels: tuple[str, ...] = ()
    logits: bool = False
    tensor: TensorSpec | None = None
    task: str = "classification"
    detection: tuple[str, str, str] = ("boxes", "scores", "classes")
    box_format: str = "xyxy"
    box_unit: str = "pixel"
    first_class: int = 0

    @classmethod
    def of(cls, instance: Instance) -> ForeignModel:
        """The model of a foreign instance.

        Raises:
            InvalidInstance: a value is not valid; the message has key, value and remedy.
        """
        meta, protocol = instance.meta, instance.protocol
        labels = tuple(each.strip() for each in meta.get("labels", "").split(",") if each.strip())
        if len(labels) > _MOST_LABELS:
            raise _problem(instance, "labels", f"give {_MOST_LABELS} at most")
        version = meta.get("version", "")
        return cls(
            protocol=protocol,
            path=_path(instance, protocol, version),
            version=version,
            field=_name(instance, "field", "data"),
            input=_name(instance, "input", _INPUTS.get(protocol, "")),
            output=_name(instance, "output", ""),
            signature=_name(instance, "signature", ""),
            binary=_choice(instance, "encoding", ("json", "binary")) == "binary",
            labels=labels,
            logits=_choice(instance, "scores", ("probabilities", "logits")) == "logits",
            tensor=_tensor(instance),
            task=_task(instance, protocol),
            **_boxes(instance),
        )


def _task(instance: Instance, protocol: str) -> str:
    task = _choice(instance, "task", TASKS)
    if task not in ("classification", "json") and protocol not in ("v2", "tfserving"):
        raise _problem(instance, "task", f"protocol {protocol} has classification and json")
    return task


def _boxes(instance: Instance) -> dict[str, Any]:
    """How boxes are read; the keys are those of `ForeignModel`."""
    text = instance.meta.get("detection", "boxes,scores,classes")
    names = tuple(each.strip() for each in text.split(","))
    if len(names) != 3 or not all(map(_NAME.fullmatch, names)):
        raise _problem(instance, "detection", "use three outputs: boxes,scores,classes")
    first = instance.meta.get("first_class", "0")
    if first not in ("0", "1"):
        raise _problem(instance, "first_class", "use 0 or 1")
    return {
        "detection": names,
        "box_format": _choice(instance, "box_format", ("xyxy", "yxyx", "center")),
        "box_unit": _choice(instance, "box_unit", ("pixel", "share")),
        "first_class": int(first),
    }


def _path(instance: Instance, protocol: str, version: str) -> str:
    path = instance.meta.get("path")
    if path is not None:
        if not _PATH.fullmatch(path):
            raise _problem(instance, "path", "use a path that starts with /, such as /predict")
        return path
    model = quote(instance.meta.get("model", instance.service), safe="")
    form = _PATHS.get(protocol, "/").replace("{model}", model)
    form = form.replace("{/versions/}", f"/versions/{version}" if version else "")
    return form.replace("{/version}", f"/{version}" if version else "")


def _tensor(instance: Instance) -> TensorSpec | None:
    meta = instance.meta
    if "size" not in meta:
        for key in ("layout", "dtype", "scale", "mean", "std"):
            if key in meta:
                raise _problem(instance, key, "it has an effect only with size, such as 224x224")
        return None
    match = _SIZE.fullmatch(meta["size"])
    height = int(match[1]) if match else 0
    width = int(match[2] or match[1]) if match else 0
    if match is None or not height or not width:
        raise _problem(instance, "size", "use HEIGHTxWIDTH or HEIGHTxWIDTHx1 (gray): 224x224")
    channels = int(match[3] or 3)
    spec = TensorSpec(
        height=height,
        width=width,
        channels=channels,
        first=_choice(instance, "layout", ("NHWC", "NCHW")) == "NCHW",
        dtype=_choice(instance, "dtype", ("float32", "uint8")),
        scale=_numbers(instance, "scale", 1, 1.0)[0],
        mean=_numbers(instance, "mean", channels, 0.0),
        std=_numbers(instance, "std", channels, 1.0),
    )
    if not all(spec.std):
        raise _problem(instance, "std", "use numbers other than 0")
    plain = (spec.scale, set(spec.mean), set(spec.std)) == (1.0, {0.0}, {1.0})
    if spec.dtype == "uint8" and not plain:
        raise _problem(instance, "dtype", "scale, mean and std are for float32")
    return spec


def _numbers(instance: Instance, key: str, count: int, default: float) -> tuple[float, ...]:
    """So many numbers, or one for all; a number may be a fraction, such as `1/255`."""
    text = instance.meta.get(key)
    if text is None:
        return (default,) * count
    try:
        found = tuple(map(_number, text.split(",")))
    except (ValueError, ZeroDivisionError):
        found = ()
    if len(found) not in (1, count) or not all(map(math.isfinite, found)):
        wanted = "a number" if count == 1 else f"one number or {count}, such as 0.485,0.456,0.406"
        raise _problem(instance, key, f"use {wanted}")
    return found * count if len(found) == 1 else found


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


def _choice(instance: Instance, key: str, choices: tuple[str, ...]) -> str:
    value = instance.meta.get(key, choices[0])
    if value not in choices:
        raise _problem(instance, key, f"use {' or '.join(choices)}")
    return value


def _name(instance: Instance, key: str, default: str) -> str:
    value = instance.meta.get(key, default)
    if value and not _NAME.fullmatch(value):
        raise _problem(instance, key, "use 1 to 128 letters, digits and . _ : / -")
    return value


def _problem(instance: Instance, key: str, remedy: str) -> InvalidInstance:
    meta: Mapping[str, str] = instance.meta
    return InvalidInstance(
        f"{instance.service} at {instance.address}: its metadata {key}={meta[key][:80]!r} is not "
        f"valid: {remedy}"
    )
