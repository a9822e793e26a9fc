"""Containers that may do nothing but run, and the models that the workers of each image serve."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["FRAMEWORKS", "MODEL", "RIGHTS", "STRICT", "temporary_files", "write_model"]

# For podman, whose --read-only alone leaves /tmp, /run and /var/tmp writable, and whose
# health checks need systemd.
STRICT: Final = (
    *("--no-healthcheck", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges"),
)
# What the worker in an image serves here.
FRAMEWORKS: Final = {
    "onnx": "onnx",
    "openvino": "openvino",
    "litert": "litert",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "gpu": "tensorflow",
}
MODEL: Final = "colours"
# A program for the Python of a container of a worker.
RIGHTS: Final = """
import errno
for line in open("/proc/1/status"):
    print(line.strip().replace(":", ""))
for place in ("/", "/opt/fingerpost", "/models"):
    try:
        open(f"{place}/x", "w")
    except OSError as error:
        print("cannot", place, errno.errorcode[error.errno])
"""


def temporary_files(target: str) -> tuple[str, ...]:
    """TensorFlow is not imported without a folder for them, PyTorch loads no exported program."""
    needed = FRAMEWORKS.get(target) in ("tensorflow", "torch")
    return ("--tmpfs=/tmp:size=16m",) if needed else ()


def write_model(framework: str, folder: Path) -> None:
    """Version 1 of `MODEL`, in a folder of models."""
    version = folder / MODEL / "1"
    version.mkdir(parents=True)
    if framework == "onnx":
        from tests.support.builders import onnx

        onnx.channels_first(version)
    elif framework == "openvino":
        from tests.support.builders import openvino

        openvino.channels_first(version)
    elif framework == "litert":
        from tests.support.builders import litert

        litert.floats(version)
    elif framework == "torch":
        from tests.support.builders import torch

        torch.exported(version)
    else:
        from tests.support.builders import tensorflow

        tensorflow.trained(version)
