"""Whether the installed frameworks fit the machine: its driver, GPUs and processor.

Read from the metadata of the installed packages: importing three frameworks takes 15 s and 2 GB.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, note, ok, warning
from fingerpost.worker.backends.needed import NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.deploy.doctor.gpu_state import GpusState

__all__ = ["check_frameworks", "installed_packages"]

_FRAMEWORKS: Final = tuple(package for each in NEEDED.values() for package in each.packages)
_EXTRAS: Final = tuple(each.extra for each in NEEDED.values() if each.packages)
_CUDA_RUNTIME: Final = re.compile(r"nvidia-cuda-runtime(?:-cu\d+)?")
# The oldest driver for each CUDA (minor version compatibility), and the least compute capability:
# https://docs.nvidia.com/deploy/cuda-compatibility/ and the release notes of CUDA 11, 12 and 13.
_DRIVERS: Final = {11: (450, (3, 5)), 12: (525, (5, 0)), 13: (580, (7, 5))}


def installed_packages() -> dict[str, str]:
    """The versions of those installed packages that `check_frameworks` looks at."""
    found = {}
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.name or "").lower()
        if name in {"numpy", *_FRAMEWORKS} or _CUDA_RUNTIME.fullmatch(name):
            found[name] = each.version
    return found


def check_frameworks(packages: Mapping[str, str], state: GpusState) -> Iterator[Finding]:
    """The findings for the frameworks.

    Args:
        packages: see `installed_packages`.
        state: the GPUs.
    """
    there = [name for name in _FRAMEWORKS if name in packages]
    listed = ", ".join(f"{name} {packages[name]}" for name in there)
    if not there:
        yield warning(
            "frameworks",
            "no framework is installed: only models that are Python classes can be served"
            if "numpy" in packages
            else "no framework is installed, so no model can be served here; a proxy can",
            f"pip install 'fingerpost[EXTRA]', with {', '.join(_EXTRAS)} or gpu",
        )
    else:
        yield ok("frameworks", listed)
    if {"onnxruntime", "onnxruntime-gpu"} <= packages.keys():
        yield error(
            "frameworks",
            "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other's files",
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of them",
        )
    if state.gpus:
        yield from _for_gpus(packages, state)


def _for_gpus(packages: Mapping[str, str], state: GpusState) -> Iterator[Finding]:
    runtimes = {
        int(version.partition(".")[0]): version
        for name, version in packages.items()
        if _CUDA_RUNTIME.fullmatch(name)
    }
    for cpu_only, instead in (
        ("tensorflow-cpu", "tensorflow[and-cuda]"),
        ("onnxruntime", "onnxruntime-gpu"),
    ):
        if cpu_only in packages and "onnxruntime-gpu" not in packages.keys() - {cpu_only}:
            yield warning(
                f"{cpu_only} and GPU",
                f"{cpu_only} {packages[cpu_only]} does not use the GPU",
                f"pip uninstall {cpu_only}; pip install '{instead}'",
            )
    torch = packages.get("torch", "")
    if torch.endswith("+cpu"):
        yield warning(
            "torch and GPU",
            f"torch {torch} does not use the GPU",
            "pip uninstall torch; pip install torch",
        )
    if not runtimes:
        yield note("CUDA", "no package brings CUDA; frameworks then need it from the system")
    driver = int(state.driver.partition(".")[0]) if state.driver[:1].isdigit() else None
    for major, version in sorted(runtimes.items()):
        least, capability = _DRIVERS.get(major, (0, (0, 0)))
        if driver is not None and driver < least:
            yield error(
                f"CUDA {major}",
                f"the installed CUDA {version} needs driver {least} or newer, and this is "
                f"{state.driver}",
                f"update the driver, or install frameworks for CUDA {state.cuda[0]}"
                if state.cuda
                else "update the driver",
            )
            continue
        old = [each for each in state.gpus if each.capability and each.capability < capability]
        if old:
            yield error(
                f"CUDA {major}",
                f"the installed CUDA {version} needs compute capability {capability[0]}."
                f"{capability[1]}, and {old[0].name} has {old[0].capability[0]}."  # type: ignore[index]
                f"{old[0].capability[1]}",  # type: ignore[index]
                "install frameworks for an older CUDA",
            )
            continue
        yield ok(f"CUDA {major}", f"CUDA {version} fits driver {state.driver}")
