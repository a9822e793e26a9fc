"""What a model's own file says of its input, against what `model.toml` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ImageInput, LoadConfig
from fingerpost.worker.backends.inputs import encoded_input, image_input
from fingerpost.worker.models.files import ModelFiles
from fingerpost.worker.models.manifest import Framework, InputSpec, Layout, Manifest, Preprocessing


def files(*, inferred: bool = False, scaling: Preprocessing | None = None, **said) -> ModelFiles:
    manifest = Manifest(
        framework=Framework.ONNX,
        input=InputSpec(**said),
        preprocessing=scaling or Preprocessing(),
    )
    return ModelFiles(
        name="cats",
        version="1",
        folder=Path(),
        path=Path(),
        manifest=manifest,
        labels=(),
        inferred=inferred,
    )


@pytest.mark.parametrize(
    ("shape", "said", "custom", "expected"),
    [
        ([None, 8, 9, 3], {}, None, (8, 9, 3, Layout.NHWC)),
        ([None, 3, 8, 9], {}, None, (8, 9, 3, Layout.NCHW)),
        ([4, 1, 8, 9], {}, Layout.NHWC, (8, 9, 1, Layout.NCHW)),
        ([None, 3, 8, 3], {}, Layout.NHWC, (3, 8, 3, Layout.NHWC)),
        ([None, 3, 8, 3], {"layout": Layout.NCHW}, Layout.NHWC, (8, 3, 3, Layout.NCHW)),
        ([None] * 4, {"height": 7, "width": 6}, Layout.NCHW, (7, 6, 3, Layout.NCHW)),
        ([None] * 4, {"height": 7, "width": 6, "channels": 1}, Layout.NHWC, (7, 6, 1, Layout.NHWC)),
        ([None, 3, None, None], {"height": 7, "width": 6}, None, (7, 6, 3, Layout.NCHW)),
        (None, {"height": 7, "width": 6}, Layout.NHWC, (7, 6, 3, Layout.NHWC)),
        (None, {"height": 7, "width": 6, "channels": 1}, Layout.NHWC, (7, 6, 1, Layout.NHWC)),
        (None, {"height": 7, "width": 6, "layout": Layout.NCHW}, None, (7, 6, 3, Layout.NCHW)),
    ],
)
def test_shapes(shape: list | None, said: dict, custom: Layout | None, expected: tuple) -> None:
    found = image_input(files(**said), shape, "float32", layout=custom)
    assert (found.height, found.width, found.channels, found.layout) == expected
    assert found.batch == (shape and shape[0])


@pytest.mark.parametrize(
    ("shape", "said", "message"),
    [
        ([None, 192, 192, 3], {"height": 224}, "input.height is 224 in model.toml .*takes 192"),
        ([None, 192, 192, 3], {"channels": 1}, "input.channels is 1 in model.toml .*takes 3"),
        ([None, 192, 192, 3], {"encoded": True}, "input.encoded is true, but the model takes fl"),
        ([None, 8, 8, 3], {"layout": Layout.NCHW}, r"takes 8 channels \(NCHW\): expected 1"),
        (
            [None, None, 8, None],
            {},
            r"first or last: set input.layout.*, or --input-layout",
        ),
        ([None, 3, None, None], {"height": 7}, "which image size it takes: .*--image-size"),
        ([None, 784], {}, r"its input is float32 \[\?, 784\]; expected pixels"),
    ],
)
def test_contradictions(shape: list, said: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        image_input(files(**said), shape, "float32", layout=None)


def test_scaling_must_fit() -> None:
    shape, scaling = [None, 8, 8, 3], Preprocessing(mean=127.5, std=127.5)
    assert image_input(files(scaling=scaling), shape, "float32", layout=None).dtype == "float32"
    with pytest.raises(ConfigurationError, match="remove mean and std from model.toml"):
        image_input(files(scaling=scaling), shape, "uint8", layout=None)
    with pytest.raises(ConfigurationError, match="remove mean and std from model.toml"):
        encoded_input(files(scaling=scaling), None)
    # What is only customary yields to what the model says.
    guessed = image_input(files(scaling=scaling, inferred=True), shape, "uint8", layout=None)
    assert guessed.preprocessing == Preprocessing()
    three = Preprocessing(mean=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigurationError, match=r"mean has 3 numbers, .*takes 1 channel"):
        image_input(files(scaling=three), [None, 8, 8, 1], "float32", layout=None)
    with pytest.raises(ConfigurationError, match="its input is int64"):
        image_input(files(), shape, "int64", layout=None)


def test_encoded_inputs() -> None:
    assert encoded_input(files(encoded=True), 2, check=False).check_encoded is False
    assert encoded_input(files(), 2) == ImageInput(encoded=True, dtype="object", batch=2)
    assert encoded_input(files(), None).tensor_shape == ()
    with pytest.raises(ConfigurationError, match="input.encoded is false"):
        encoded_input(files(encoded=False), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu': it must be auto, cpu, cuda:N, gpu, gpu:N or npu"),
        ({"device": "cuda"}, "device is 'cuda'"),
        ({"memory_fraction": 0.0}, "memory_fraction is 0.0"),
        ({"memory_fraction": float("nan")}, "memory_fraction is nan"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_load_config(options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LoadConfig(**options)
