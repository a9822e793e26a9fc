"""Frameworks are imported when a model needs them, and missed in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import importlib.abc, sys
from pathlib import Path

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model

files = find_model(Path(sys.argv[2]))
frameworks = {"tensorflow", "keras", "torch", "onnxruntime", "cv2", "numpy"}
frameworks |= {"openvino", "ai_edge_litert"}
assert not frameworks & set(sys.modules), "a framework before its time"
try:
    load_backend(files, LoadConfig())
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("module", "file", "extra"),
    [
        ("tensorflow", "m.keras", "tensorflow"),
        ("onnxruntime", "m.onnx", "onnx"),
        ("openvino", "m.xml", "openvino"),
        ("ai_edge_litert", "m.tflite", "litert"),
        ("torch", "m.pt2", "torch"),
        ("cv2", "m.prototxt", "caffe"),
        ("numpy", "m.onnx", "onnx"),
    ],
)
def test_a_missing_framework(tmp_path: Path, module: str, file: str, extra: str) -> None:
    for name in (file, "m.caffemodel", "m.bin"):
        (tmp_path / name).write_bytes(b"<net >")
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, module, str(tmp_path / file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"pip install 'fingerpost[{extra}]'" in run.stdout, run.stdout + run.stderr
    assert module in run.stdout
