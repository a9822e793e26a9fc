"""Loads a model of any framework; the framework is imported only then."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, cast

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.manifest import Framework

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load_backend"]

# Each module offers `load(files, config) -> Backend`; the extra is what brings its framework.
_MODULES: Final = {
    Framework.TENSORFLOW: ("tensorflow.backend", "TensorFlow", "tensorflow"),
    Framework.ONNX: ("onnx", "ONNX Runtime", "onnx"),
    Framework.TORCH: ("torch", "PyTorch", "torch"),
    Framework.CAFFE: ("caffe", "OpenCV", "caffe"),
    Framework.PYTHON: ("python_class", "NumPy", "python"),
}


def load_backend(files: ModelFiles, config: LoadConfig) -> Backend:
    """Load a model from disk; blocks for seconds, most of them for importing its framework.

    Raises:
        ConfigurationError: the framework is missing or does not run on this machine, the files are
            damaged, the device does not exist, or the model does not map images to rows of scores.
    """
    module, name, extra = _MODULES[files.manifest.framework]
    try:
        backend = importlib.import_module(f"fingerpost.worker.backends.{module}")
        return cast("Backend", backend.load(files, config))
    except ImportError as error:
        raise ConfigurationError(
            f"{name} cannot be imported ({error}): pip install 'fingerpost[{extra}]'"
        ) from error
