"""TensorFlow Lite models with all their inputs and outputs, as real numbers."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fingerpost.worker.backends.litert import FRAMEWORK, Program, Tensor, open_program
from fingerpost.worker.backends.quantization import byte_values, takes_bytes
from fingerpost.worker.backends.tensors.base import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]


class LiteRtTensors:
    """See `TensorModel`. Quantized inputs and outputs are real numbers here.

    An image of 8 bits is uint8, the model's integers, where `model.toml` has no scaling.
    """

    platform = "litert_tflite"
    device = "cpu"
    framework = FRAMEWORK

    def __init__(
        self, program: Program, inputs: tuple[TensorSpec, ...], signature: str = ""
    ) -> None:
        self.signature = signature
        self._program: Program | None = program
        self.inputs = inputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        program = self._program
        assert program is not None, "the model is closed"  # noqa: S101
        values = {
            each.name: _integers(feeds[each.name], each, program.inputs[each.name])
            for each in self.inputs
        }
        outputs = program.run(values)
        for name, tensor in program.outputs.items():
            if tensor.quantization is not None:
                outputs[name] = tensor.quantization.dequantize(outputs[name])
        return outputs

    def close(self) -> None:
        """Free the model's memory."""
        self._program = None


def load(files: ModelFiles, config: LoadConfig) -> LiteRtTensors:
    """Load a model from disk. Raises `ConfigurationError`."""
    program = open_program(files, config, config.threads or os.cpu_count() or 1)
    specs = []
    for name, tensor in program.inputs.items():
        spec = TensorSpec(name=name, dtype=tensor.dtype, shape=tensor.shape)
        if tensor.quantization is not None:
            image = len(tensor.shape) in (3, 4) and bool({1, 3} & {*tensor.shape[-3::2]})
            as_they_are = image and takes_bytes(tensor.quantization, files.manifest.preprocessing)
            spec = replace(spec, dtype="uint8" if as_they_are else "float32")
        specs.append(spec)
    return LiteRtTensors(program, tuple(specs), files.manifest.input.signature or "")


def _integers(value: NDArray[Any], spec: TensorSpec, tensor: Tensor) -> NDArray[Any]:
    if tensor.quantization is None:
        return value
    if spec.dtype == "uint8":
        return byte_values(value, tensor.quantization)
    return tensor.quantization.quantize(value)
