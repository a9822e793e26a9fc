"""Python classes that return several arrays, or take several."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.python_class import construct
from fingerpost.worker.backends.tensors.base import TensorSpec, flattened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]


class PythonTensors:
    """See `TensorModel`: an object whose `predict` returns an array, a tuple or a dictionary.

    It gets one array, or, where the object has an attribute `inputs` with names and types, an array
    for each as keyword arguments.
    """

    platform = "python"

    def __init__(self, model: Any, inputs: tuple[TensorSpec, ...], *, named: bool) -> None:
        self._model = model
        self._named = named
        self.inputs = inputs
        self.device = str(getattr(model, "device", "cpu"))
        self.framework = f"python {platform.python_version()}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `TensorModel.run`."""
        if self._named:
            outputs = self._model.predict(**feeds)
        else:
            (value,) = feeds.values()
            outputs = self._model.predict(value)
        return {name: np.asarray(value) for name, value in flattened(outputs).items()}

    def close(self) -> None:
        """Call the object's own `close`, if it has one."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


def load(files: ModelFiles, config: LoadConfig) -> PythonTensors:
    """Construct the class of a model's folder. Raises `ConfigurationError`."""
    model = construct(files, config)
    if not callable(getattr(model, "predict", None)):
        raise ConfigurationError(
            f"model {files.name}: class {files.manifest.python_class!r} has no method predict"
        )
    named: Mapping[str, str] | None = getattr(model, "inputs", None)
    if named is not None:
        specs = tuple(TensorSpec(name=k, dtype=str(v), shape=None) for k, v in named.items())
        return PythonTensors(model, specs, named=True)
    dtype = str(getattr(model, "dtype", "uint8"))
    return PythonTensors(model, (TensorSpec(name="image", dtype=dtype, shape=None),), named=False)
