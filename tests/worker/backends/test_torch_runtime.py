"""`[runtime]` of model.toml: what is compiled, and what is computed in bfloat16."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import Framework
from fingerpost.worker.models.runtime import Precision, RuntimeSpec
from tests.support.builders.torch import exported, torchscript
from tests.support.colours import SIDE
from tests.support.later import later

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fingerpost.worker.backends import torch as backends
    from fingerpost.worker.backends.tensors import torch as tensor_backends
else:
    torch = later("torch")
    nn = later("torch.nn")
    backends = later("fingerpost.worker.backends.torch")
    tensor_backends = later("fingerpost.worker.backends.tensors.torch")

RNG = np.random.default_rng(9)
IMAGES = list(RNG.integers(0, 256, (5, SIDE, SIDE, 3), np.uint8))
CPU = LoadConfig(device="cpu")


def network() -> nn.Module:
    """With a convolution and a product of matrices, whose rounding is seen."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.conv = nn.Conv2d(3, 8, 3)
            self.linear = nn.Linear(8, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.conv(images / 64).relu().mean((2, 3)))

    return Network().eval()


def write(folder: Path, runtime: str = "") -> Path:
    axis = ({0: torch.export.Dim.DYNAMIC},)
    example = (torch.rand(2, 3, SIDE, SIDE),)
    program = torch.export.export(network(), example, dynamic_shapes=axis)
    torch.export.save(program, folder / "model.pt2")
    (folder / "model.toml").write_text(f'framework = "torch"\ntask = "regression"\n{runtime}')
    return folder


def load_from(folder: Path) -> backends.TorchBackend:
    return backends.load(find_model(folder, name="m"), CPU)


def test_bfloat16_is_near(tmp_path: Path) -> None:
    expected = load_from(write(tmp_path)).predict(IMAGES)
    write(tmp_path, '[runtime]\nprecision = "bfloat16"\n')
    found = load_from(tmp_path).predict(IMAGES)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=0.02, abs=0.02)
    assert np.abs(found - expected).max() > 1e-5  # it was computed with other numbers
    tensors = tensor_backends.load(find_model(tmp_path, name="m"), CPU)
    batch = np.stack(IMAGES).transpose(0, 3, 1, 2).astype(np.float32)
    (output,) = tensors.run({"images": batch}).values()
    assert output.dtype == np.float32
    assert output == pytest.approx(found, abs=1e-2)


@pytest.mark.timeout(300)  # it runs a C++ compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, while it compiles
def test_a_compiled_program_gives_the_same(tmp_path: Path) -> None:
    expected = load_from(write(tmp_path)).predict(IMAGES)
    backend = load_from(write(tmp_path, "[runtime]\ncompile = true\n"))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert backend.predict(IMAGES) == pytest.approx(expected, abs=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    assert backend.predict(IMAGES[:3]) == pytest.approx(expected[:3], abs=1e-5)
    # One graph for all sizes of a batch.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1


def test_what_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    torchscript(folder)
    with (folder / "model.toml").open("a") as file:
        file.write("[runtime]\ncompile = true\n")
    with pytest.raises(ConfigurationError, match=r"for exported programs .*model.pt is TorchScri"):
        load_from(folder)
    exported(tmp_path)
    (tmp_path / "model.toml").write_text('framework = "torch"\n[runtime]\ncompile = true\n')
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        load_from(tmp_path)


def test_settings_for_another_framework() -> None:
    spec = RuntimeSpec(precision=Precision.BFLOAT16, compile=True)
    assert spec.fit(Framework.TORCH) == spec
    assert spec.fit(Framework.OPENVINO) == RuntimeSpec(precision=Precision.BFLOAT16)
    assert spec.fit(Framework.ONNX) == RuntimeSpec()
    for each in Framework:
        spec.fit(each).check(each)


@pytest.mark.parametrize(
    ("framework", "runtime", "message"),
    [
        ("onnx", 'precision = "bfloat16"', "runtime.precision is for framework torch and openvino"),
        ("openvino", "compile = true", "runtime.compile is for framework torch, but .* 'openvino'"),
        ("torch", 'precision = "int8"', "Invalid enum value 'int8'"),
    ],
)
def test_settings_that_a_framework_lacks(
    tmp_path: Path, framework: str, runtime: str, message: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"-")
    (tmp_path / "model.toml").write_text(f'framework = "{framework}"\n[runtime]\n{runtime}\n')
    with pytest.raises(ConfigurationError, match=message):
        find_model(tmp_path, name="m")
