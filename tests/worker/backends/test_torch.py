"""What is PyTorch's own: which files are models, and which are pickles that are never opened."""

from __future__ import annotations

import logging
import os
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ImageInput, LoadConfig
from fingerpost.worker.backends.pixels import is_pixels, stack
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import ChannelOrder, Layout, Preprocessing
from tests.support.builders.torch import colours, example, exported, torchscript
from tests.support.colours import SIDE
from tests.support.later import later

if TYPE_CHECKING:
    import torch

    from fingerpost.worker.backends import torch as backend
    from fingerpost.worker.backends import torch_pixels
else:
    torch = later("torch")
    backend = later("fingerpost.worker.backends.torch")
    torch_pixels = later("fingerpost.worker.backends.torch_pixels")

RED = np.full((SIDE, SIDE, 3), (250, 10, 10), np.uint8)


def load_from(path: Path) -> backend.TorchBackend:
    return backend.load(find_model(path, name="m"), LoadConfig(device="cpu"))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_the_contents_count_and_not_the_suffix(tmp_path: Path) -> None:
    exported(tmp_path)
    (tmp_path / "model.pt2").rename(tmp_path / "model.pt")
    loaded = load_from(tmp_path)
    assert (loaded.input.height, loaded.input.width, loaded.input.batch) == (SIDE, SIDE, None)
    assert loaded.predict([RED]).argmax() == 0


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save(colours().state_dict(), tmp_path / "state.pt")
    torch.save(Trap(sprung), tmp_path / "module.pt")
    torch.save(Trap(sprung), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt2").write_text("no archive")
    for name, what in (
        ("state.pt", r"is a pickle .*torch.export.save\(torch.export.export\(model"),
        ("module.pt", "is a pickle"),
        ("old.pt", "is a pickle of PyTorch"),
        ("text.pt2", "is not a PyTorch model: expected an exported program or TorchScript"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            load_from(tmp_path / name)
    assert not sprung.exists()


def test_a_pickle_inside_an_exported_program_is_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`torch.export.load` by itself falls back to unpickling whatever it finds."""
    exported(tmp_path)
    sprung, trap = tmp_path / "sprung", tmp_path / "trap"
    torch.save(Trap(sprung), trap)
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(tmp_path / "model.pt2") as good, zipfile.ZipFile(bad, "w") as archive:
        for name in good.namelist():
            pickled = name.endswith("sample_inputs/model.pt")
            archive.writestr(name, trap.read_bytes() if pickled else good.read(name))
    caplog.set_level(logging.CRITICAL, logger="torch")
    with pytest.raises(ConfigurationError, match=r"bad.pt2 cannot be loaded: .*[Ww]eights"):
        load_from(bad)
    assert not sprung.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_an_exported_program_of_any_size(tmp_path: Path) -> None:
    shapes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    program = torch.export.export(colours(), (example(2),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ConfigurationError, match="which image size it takes: .*input.height"):
        load_from(tmp_path)
    (tmp_path / "model.toml").write_text('framework = "torch"\n[input]\nheight = 8\nwidth = 24\n')
    loaded = load_from(tmp_path)
    assert loaded.input.tensor_shape == (3, 8, 24)
    assert loaded.predict([RED[:8].repeat(2, axis=1)[:, :24]]).argmax() == 0


def test_torchscript_needs_a_size_and_warns_nobody(tmp_path: Path) -> None:
    torchscript(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_from(tmp_path)
        loaded.predict([RED, RED])
    assert caught == []
    (tmp_path / "model.toml").unlink()
    with pytest.raises(ConfigurationError, match="which image size it takes"):
        load_from(tmp_path)


def test_a_view_of_what_a_convolution_gave(tmp_path: Path) -> None:
    """Its channels are last in memory, whatever the model was written for."""

    class Viewing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3)
            self.dense = torch.nn.Linear(4 * (SIDE - 2) ** 2, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.convolution(images)
            return self.dense(found.view(found.size(0), -1))

    module = Viewing().eval()
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(module, (example(2),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "m.pt2")
    expected = module(torch.from_numpy(RED).permute(2, 0, 1)[None].float()).detach().numpy()
    scores = load_from(tmp_path).predict([RED, RED])
    assert scores == pytest.approx(np.concatenate([expected, expected]), rel=1e-3, abs=1e-3)


def test_clear_errors(tmp_path: Path) -> None:
    class Pair(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images.mean((2, 3)), images.amax((2, 3))

    class TwoInputs(torch.nn.Module):
        def forward(self, images: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
            return (images + more).mean((2, 3))

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(TwoInputs(), (example(2), example(2))), path)
    with pytest.raises(ConfigurationError, match="takes 2 inputs: expected one"):
        load_from(path)
    torch.export.save(torch.export.export(Pair(), (example(1),)), path)
    with pytest.raises(TypeError, match="returns a tuple, not a tensor"):
        load_from(path).predict([RED])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match="not a PyTorch model"):
        load_from(path)
    exported(tmp_path)
    (tmp_path / "model.toml").write_text('framework = "torch"\ninput.name = "x"\n')
    with pytest.raises(ConfigurationError, match="input.name is 'x', but .* leave it out"):
        load_from(tmp_path)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("order", ChannelOrder)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("mean", [0.0, 127.5, (123.7, 116.3, 103.5)])
def test_pixels_scaled_on_the_device_are_those_scaled_before(
    layout: Layout, order: ChannelOrder, dtype: str, mean: float | tuple[float, ...]
) -> None:
    scaled = {} if dtype == "uint8" else {"mean": mean, "std": (58.4, 57.1, 57.4)}
    preprocessing = Preprocessing(order=order, **scaled)
    wanted = ImageInput(height=5, width=4, layout=layout, dtype=dtype, preprocessing=preprocessing)
    images = list(np.random.default_rng(1).integers(0, 256, (3, 5, 4, 3), np.uint8))
    pixels = torch_pixels.DevicePixels(wanted, torch.device("cpu"))
    assert np.array_equal(pixels.scaled(stack(images, pixels.wanted)), stack(images, wanted))


def test_only_decoded_images_are_scaled_on_the_device() -> None:
    assert is_pixels(RED)
    assert not is_pixels(RED.astype(np.float32))
    assert not is_pixels(b"a JPEG")
