"""Models that OpenVINO runs, with all their inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from fingerpost.worker.backends.openvino import (
    compiled,
    dtype_of,
    name_of,
    open_model,
    platform_of,
    sides_of,
)
from fingerpost.worker.backends.tensors.base import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]


class OpenVinoTensors:
    """See `TensorModel`."""

    def __init__(
        self, model: ov.CompiledModel, inputs: tuple[TensorSpec, ...], platform: str, device: str
    ) -> None:
        self._request = model.create_infer_request()
        self._names = [name_of(each) for each in model.outputs]
        self.inputs = inputs
        self.platform = platform
        self.device = device
        self.framework = f"openvino {ov.__version__.partition('-')[0]}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        values = [np.ascontiguousarray(feeds[each.name]) for each in self.inputs]
        outputs = self._request.infer(values, share_inputs=True)
        return {name: np.asarray(outputs[place]) for place, name in enumerate(self._names)}

    def close(self) -> None:
        """Free the model's memory."""
        del self._request


def load(files: ModelFiles, config: LoadConfig) -> OpenVinoTensors:
    """Load a model from disk. Raises `ConfigurationError`."""
    core, model = open_model(files)
    wanted = files.manifest.input.name
    inputs = tuple(
        TensorSpec(name=name_of(each, wanted), dtype=dtype_of(each), shape=sides_of(each))
        for each in model.inputs
    )
    found, device = compiled(core, model, files, config, config.threads)
    return OpenVinoTensors(found, inputs, platform_of(files), device)
