"""What `fingerpost.worker` exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fingerpost.worker

pytestmark = pytest.mark.shell


def test_every_public_name_is_there() -> None:
    assert sorted(fingerpost.worker.__all__) == fingerpost.worker.__all__
    for name in set(fingerpost.worker.__all__) - {"__version__"}:
        assert getattr(fingerpost.worker, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fingerpost.worker.nothing


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.shell
def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"numpy", "aiohttp", "PIL", "tensorflow", "torch", "onnxruntime", "cv2"}
    loaded = run("import sys, fingerpost.worker; print(*sys.modules)").split()
    assert not heavy & set(loaded)
    loaded = run("import sys; from fingerpost.worker import serve; print(*sys.modules)").split()
    assert not heavy - {"numpy", "aiohttp", "PIL"} & set(loaded)


@pytest.mark.shell
def test_without_numpy_it_says_what_to_install() -> None:
    told = run(
        "import sys; sys.modules['numpy'] = None\n"
        "try:\n  from fingerpost.worker import serve\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert "pip install 'fingerpost[python]'" in told
