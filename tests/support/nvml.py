"""A stand-in of NVIDIA's management library, in C: the real binding loads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["build_nvml"]

_SOURCE = Path(__file__).parent / "nvml.c"


def build_nvml(folder: Path) -> Path:
    """Compile it into a folder; the test is skipped where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) here to build the stand-in of NVML with")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    return library
