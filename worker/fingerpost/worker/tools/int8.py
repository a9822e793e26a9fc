"""Writes an ONNX file with 8-bit integers, by ONNX Runtime's static quantizer.

The form is QDQ, which ONNX Runtime and OpenVINO read. Inputs and outputs keep their names and
types.

- Weights have a scale for each channel: with one for a whole tensor, MobileNet's depthwise
  convolutions lose most of their accuracy (Krishnamoorthi 2018, "Quantizing deep convolutional
  networks for efficient inference", section 3.1).
- Weights have 7 bits. On x86 processors without VNNI, products of 8 bits are added in pairs in 16
  bits, and cut off there; and any worker of a cluster may be such a machine.
- What the last layer gives stays float, and so does a softmax: scores of 8 bits would be equal.

Rejected: dynamic quantization, which has no fast convolutions; the form QOperator, which only ONNX
Runtime reads; symbolic shape inference, which is for transformers, and needs sympy.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Calibration", "import_quantizer", "write_int8"]

_FLOAT_OPERATORS: Final = frozenset({"LogSoftmax", "Softmax"})
_FLOAT_OUTPUTS: Final = ("Gemm", "MatMul")
_PREPARED: Final = "prepared.onnx"


class Calibration(Enum):
    """How the range of a tensor follows from its values on the images.

    `minmax` keeps all values. `percentile` leaves out the largest 0.001 %. `entropy` chooses the
    range whose histogram in 8 bits differs the least from the whole one (Migacz 2017, "8-bit
    inference with TensorRT"). The last two take several times as long.
    """

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


_METHODS: Final = {
    Calibration.MINMAX: "MinMax",
    Calibration.ENTROPY: "Entropy",
    Calibration.PERCENTILE: "Percentile",
}


def import_quantizer() -> Any:
    """The package `onnxruntime.quantization`.

    Raises:
        ConfigurationError: it is not installed, or lacks onnx.
    """
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnxruntime.quantization.shape_inference")
        return importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise ConfigurationError(
            f"ONNX Runtime's quantizer cannot be imported ({error}): "
            "pip install 'fingerpost[quantize]'"
        ) from error


def write_int8(
    model: Path,
    out: Path,
    name: str,
    batches: Sequence[NDArray[np.generic]],
    method: Calibration,
    scratch: Path,
) -> None:
    """Quantize an ONNX file.

    Args:
        model: the original; its weights may be in files beside it.
        out: the new file.
        name: the model's input.
        batches: what goes in there, to measure the ranges of all tensors.
        method: how.
        scratch: a folder for a copy of the model.

    Raises:
        Exception: of many kinds, from the quantizer.
    """
    quantizer = import_quantizer()
    prepared = scratch / _PREPARED
    every = {*quantizer.registry.QLinearOpsRegistry, *quantizer.registry.QDQRegistry}
    with _quiet():
        quantizer.shape_inference.quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantizer.quantize_static(
            prepared,
            out,
            _Reader(name, batches),
            quant_format=quantizer.QuantFormat.QDQ,
            op_types_to_quantize=sorted(every - _FLOAT_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=quantizer.QuantType.QUInt8,
            weight_type=quantizer.QuantType.QInt8,
            calibrate_method=quantizer.CalibrationMethod[_METHODS[method]],
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(_FLOAT_OUTPUTS),
                # Batches at a time whose tensors are in memory; all of them by default.
                "CalibStridedMinMax": 1,
            },
        )


class _Reader:
    """Hands out batches as ONNX Runtime's calibrators ask for them (`CalibrationDataReader`)."""

    def __init__(self, name: str, batches: Sequence[NDArray[np.generic]]) -> None:
        self._name, self._batches = name, batches
        self._next, self._end = 0, len(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand out only these from now on."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """The next batch; None at the end."""
        if self._next >= self._end:
            return None
        self._next += 1
        return {self._name: self._batches[self._next - 1]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the histograms' progress, a line for each image, off the standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
