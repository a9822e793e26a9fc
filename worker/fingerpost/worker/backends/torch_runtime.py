"""`[runtime]` of PyTorch's models: compiled for this machine, or in bfloat16."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.runtime import Precision

if TYPE_CHECKING:
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["with_runtime"]

_COMPILERS: Final = ("g++", "c++", "clang++")


def with_runtime(
    module: Callable[..., Any], files: ModelFiles, device: torch.device, *, exported: bool
) -> Callable[..., Any]:
    """The module as the table `[runtime]` of `model.toml` says; itself where it says nothing.

    Args:
        module: on the device.
        files: the model.
        device: where it runs.
        exported: whether it is an exported program, and not TorchScript.

    Raises:
        ConfigurationError: it cannot be compiled here.
    """
    runtime = files.manifest.runtime
    if runtime.compile:
        module = _compiled(module, files, device, exported=exported)
    if runtime.precision is Precision.BFLOAT16:
        module = partial(_in_bfloat16, module, device.type)
    return module


def _in_bfloat16(module: Callable[..., Any], device: str, *values: torch.Tensor) -> Any:
    """What is sensitive to rounding, such as a softmax, stays in float32: that is autocast's."""
    with torch.autocast(device, torch.bfloat16):
        return module(*values)


def _compiled(
    module: Callable[..., Any], files: ModelFiles, device: torch.device, *, exported: bool
) -> Callable[..., Any]:
    """On a processor with its weights as constants (`freezing`).

    MobileNetV2, 8 images, one thread, PyTorch 2.13: 23 ms of processor time an image; 33 without
    `freezing`, 43 as it is.
    """
    if not exported:
        raise ConfigurationError(
            f"model {files.name}: runtime.compile is for exported programs (.pt2), and "
            f"{files.path.name} is TorchScript: leave it out, or export the model"
        )
    compiler = os.environ.get("CXX", "")
    if not any(map(shutil.which, (compiler, *_COMPILERS) if compiler else _COMPILERS)):
        raise ConfigurationError(
            f"model {files.name}: runtime.compile needs a C++ compiler, and there is none here: "
            "install g++ (apt-get install g++), name one by CXX, or leave it out"
        )
    with warnings.catch_warnings():  # PyTorch's own modules use what it deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._inductor.config

        # Otherwise a process for each core stays beside the worker.
        torch._inductor.config.compile_threads = 1
        found: Callable[..., Any] = torch.compile(
            module, dynamic=True, options={"freezing": device.type == "cpu"}
        )
    return found
