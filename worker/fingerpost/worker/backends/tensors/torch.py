"""PyTorch models with all their inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.tensors.base import TensorSpec, flattened
from fingerpost.worker.backends.torch import choose_device, is_exported, load_script, read_program
from fingerpost.worker.backends.torch_runtime import with_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]


class TorchTensors:
    """See `TensorModel`. Outputs are named by `flattened`."""

    platform = "pytorch_libtorch"

    def __init__(self, module: Any, inputs: tuple[TensorSpec, ...], device: torch.device) -> None:
        self._module = module
        self._device = device
        self.inputs = inputs
        self.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.framework = f"torch {torch.__version__}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        values = [torch.from_numpy(feeds[each.name]).to(self._device) for each in self.inputs]
        with torch.inference_mode():
            outputs = flattened(self._module(*values))
            return {name: _array(value) for name, value in outputs.items()}

    def close(self) -> None:
        """Free the model's memory."""
        del self._module
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def load(files: ModelFiles, config: LoadConfig) -> TorchTensors:
    """Load a model from disk. Raises `ConfigurationError`."""
    device = choose_device(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        if is_exported(files.path):
            module, values = read_program(files.path, device)
            inputs = tuple(
                TensorSpec(
                    name=name,
                    dtype=str(value.dtype).removeprefix("torch."),
                    shape=tuple(side if isinstance(side, int) else None for side in value.shape),
                )
                for name, value in values.items()
            )
            return TorchTensors(with_runtime(module, files, device, exported=True), inputs, device)
        # Not with its channels last, as exported programs are: a `view` of what a convolution gave
        # would fail, and only classifiers are folded, which takes such views away.
        module = load_script(files.path, device)
        names = [each.debugName().partition(".")[0] for each in module.graph.inputs()][1:]
    except ConfigurationError:
        raise
    except Exception as error:  # of any kind: the archive may hold anything
        raise ConfigurationError(f"{files.path} cannot be loaded: {reason(error)}") from error
    # TorchScript says neither types nor shapes.
    specs = tuple(TensorSpec(name=name, dtype="float32", shape=None) for name in names)
    return TorchTensors(with_runtime(module, files, device, exported=False), specs, device)


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype is torch.bfloat16 else value)
    return np.asarray(value)
