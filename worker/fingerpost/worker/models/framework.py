"""The frameworks that run models."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

__all__ = ["FRAMEWORK_NAMES", "Framework"]


class Framework(Enum):
    """The framework that runs the model; also read by its other names, such as `pytorch`."""

    TENSORFLOW = "tensorflow"
    ONNX = "onnx"
    OPENVINO = "openvino"
    LITERT = "litert"
    TORCH = "torch"
    CAFFE = "caffe"
    PYTHON = "python"

    @classmethod
    def _missing_(cls, value: object) -> Framework | None:
        name = re.sub(r"[^a-z0-9]", "", value.casefold()) if isinstance(value, str) else ""
        known = _OTHER_NAMES.get(name, name)
        return next((each for each in cls if each.value == known), None)


FRAMEWORK_NAMES: Final = " or ".join(
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
    **dict.fromkeys(("openvinoir", "openvinoonnx", "openvinotflite"), "openvino"),
    **dict.fromkeys(("aiedgelitert", "litertflite", "tensorflowlite", "tflite"), "litert"),
    "opencvcaffe": "caffe",
}  # fmt: skip
