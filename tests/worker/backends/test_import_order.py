"""TensorFlow and PyTorch in one process: triton's library is loaded before TensorFlow's."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import torch as torch_models
from tests.support.colours import LABELS, Models

# Loads each model, and prints what it says to a green image.
_LOAD = """
import sys
from pathlib import Path

import numpy as np
{before}
from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model

for path in sys.argv[1:]:
    try:
        backend = load_backend(find_model(Path(path)), LoadConfig(device="cpu"))
        scores = backend.predict([np.full((16, 16, 3), (0, 255, 0), np.uint8)])
        print(backend.framework.split()[0].lower(), int(scores[0].argmax()))
    except ConfigurationError as error:
        print("refused:", error)
"""
_PRINT_WHAT_IS_LOADED = """
from pathlib import Path
print("triton's library is loaded:", "libtriton.so" in Path("/proc/self/maps").read_text())
raise ImportError("not the real one")
"""


def _load(*models: Path, before: str = "", packages: Path | None = None) -> str:
    run = subprocess.run(
        [sys.executable, "-c", _LOAD.format(before=before), *map(str, models)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(packages or "")},
    )
    assert run.returncode == 0, f"{run.returncode}: {run.stdout}{run.stderr}"
    return run.stdout


def _write_package(folder: Path, name: str, code: str = "") -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    return package


def _write_triton(folder: Path) -> None:
    """A package with another library of that name: what counts is when it is loaded."""
    library = _write_package(folder, "triton") / "_C" / "libtriton.so"
    library.parent.mkdir()
    shutil.copy(str(importlib.import_module("msgspec._core").__file__), library)


def _write_program(folder: Path) -> Path:
    program = folder / "torch"
    program.mkdir()
    torch_models.exported(program)
    return program


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["keras", "python"])
def test_tritons_library_is_loaded_before_tensorflows(tmp_path: Path, kind: str) -> None:
    packages = tmp_path / "packages"
    _write_package(packages, "tensorflow", _PRINT_WHAT_IS_LOADED)
    _write_triton(packages)
    model = tmp_path / "model"
    model.mkdir()
    if kind == "keras":
        (model / "m.keras").write_bytes(b"-")
    else:
        (model / "own.py").write_text("import tensorflow\n")
        (model / "model.toml").write_text('framework = "python"\nclass = "own:Model"\n')
    printed = _load(model, packages=packages)
    assert printed.startswith("triton's library is loaded: True\nrefused: "), printed
    assert "not the real one" in printed


@pytest.mark.frameworks
@pytest.mark.timeout(300)  # two frameworks are imported, twice
def test_models_of_both_in_one_process(models: Models, tmp_path: Path) -> None:
    """Real ones; where PyTorch's default build is installed, triton is too, and must not crash."""
    torch = _write_program(tmp_path)
    green = LABELS.index("green")
    printed = _load(models.saved_model, torch)
    assert printed == f"tensorflow {green}\ntorch {green}\n"


@pytest.mark.frameworks
@pytest.mark.timeout(300)  # two frameworks are imported, twice
def test_tensorflow_was_imported_by_the_program(models: Models, tmp_path: Path) -> None:
    _write_triton(tmp_path / "packages")
    printed = _load(
        _write_program(tmp_path),
        models.saved_model,
        before="import tensorflow",
        packages=tmp_path / "packages",
    )
    refused, served = printed.splitlines()
    assert refused.startswith("refused: TensorFlow was imported before triton")
    assert "Write `import triton` before the program's `import tensorflow`" in refused
    assert served == f"tensorflow {LABELS.index('green')}"
