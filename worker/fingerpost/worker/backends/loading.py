"""Loads a model of any framework; the framework is imported only then."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, cast

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.needed import NEEDED
from fingerpost.worker.models.manifest import Framework

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, LoadConfig
    from fingerpost.worker.backends.tensors.base import TensorModel
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["check_task", "load_backend", "load_tensors"]

# Each module offers `load(files, config) -> Backend`.
_MODULES: Final = {
    Framework.TENSORFLOW: "tensorflow.backend",
    Framework.ONNX: "onnx",
    Framework.OPENVINO: "openvino",
    Framework.LITERT: "litert",
    Framework.TORCH: "torch",
    Framework.CAFFE: "caffe",
    Framework.PYTHON: "python_class",
}


# Of models with several tensors; each module offers `load(files, config) -> TensorModel`.
_TENSORS: Final = {
    Framework.TENSORFLOW: "tensorflow",
    Framework.ONNX: "onnx",
    Framework.OPENVINO: "openvino",
    Framework.LITERT: "litert",
    Framework.TORCH: "torch",
    Framework.PYTHON: "python",
}


def load_backend(files: ModelFiles, config: LoadConfig) -> Backend:
    """Load a model from disk; blocks for seconds, most of them for importing its framework.

    Raises:
        ConfigurationError: the framework is missing or does not run on this machine, the files are
            damaged, the device does not exist, or the model does not map images to rows of scores.
    """
    task = files.manifest.task
    if not task.one_row:
        raise ConfigurationError(
            f"model {files.name}: task is {task.value!r}, and this is only for models that give "
            "one row of numbers for an image: `fingerpost worker` serves it, `model check` runs it"
        )
    return cast("Backend", _load(files, config, _MODULES[files.manifest.framework]))


def load_tensors(files: ModelFiles, config: LoadConfig) -> TensorModel:
    """Load a model with all its inputs and outputs; see `load_backend`."""
    check_task(files)
    module = _TENSORS[files.manifest.framework]
    return cast("TensorModel", _load(files, config, f"tensors.{module}"))


def check_task(files: ModelFiles) -> None:
    """Check that a model's framework can do its task here. Raises `ConfigurationError`."""
    framework, task = files.manifest.framework, files.manifest.task
    if not task.one_row and framework not in _TENSORS:
        raise ConfigurationError(
            f"model {files.name}: task {task.value!r} is not for framework {framework.value!r}: "
            "convert it to ONNX"
        )


def _load(files: ModelFiles, config: LoadConfig, module: str) -> object:
    framework = files.manifest.framework
    needed = NEEDED[framework]
    if config.intel and framework is not Framework.OPENVINO:
        raise ConfigurationError(
            f"model {files.name}: --device {config.device} is for models that OpenVINO runs, and "
            f"this one is run by {needed.name}: use auto, cpu or cuda:N, or framework = "
            '"openvino" for an ONNX file'
        )
    try:
        return importlib.import_module(f"fingerpost.worker.backends.{module}").load(files, config)
    except ImportError as error:
        raise ConfigurationError(
            f"{needed.name} cannot be imported ({error}): {needed.remedy}"
        ) from error
