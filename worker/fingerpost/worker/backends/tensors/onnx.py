"""ONNX models with all their inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from fingerpost.worker.backends.onnx import numpy_dtype, open_session
from fingerpost.worker.backends.tensors.base import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]


class OnnxTensors:
    """See `TensorModel`."""

    platform = "onnxruntime_onnx"

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._names = [node.name for node in session.get_outputs()]
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.device = device
        self.framework = f"onnxruntime {ort.__version__}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        values = self._session.run(self._names, dict(feeds))
        return {name: np.asarray(each) for name, each in zip(self._names, values, strict=True)}

    def close(self) -> None:
        """Free the model's memory."""
        del self._session


def load(files: ModelFiles, config: LoadConfig) -> OnnxTensors:
    """Load a model from disk. Raises `ConfigurationError`."""
    return OnnxTensors(*open_session(files, config, config.threads))


def _spec(node: Any) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in node.shape)
    return TensorSpec(name=node.name, dtype=numpy_dtype(node.type), shape=shape or None)
