"""Regression models that give one number for each image, `[N]`, without an axis for it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fingerpost.client import Client, Regression
from fingerpost.errors import ConfigurationError
from tests.support.task_rig import load, serving_folder
from tests.support.vision_models import SIDE, save_onnx, save_script

pytestmark = pytest.mark.frameworks


def onnx_mean(folder: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("ReduceMean", ["image", "all"], ["mean"], keepdims=0)]
    save_onnx(folder, nodes, {"image": ["N", 3, SIDE, SIDE]}, ["mean"], all=np.array([1, 2, 3]))


def torch_mean(folder: Path) -> None:
    import torch

    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))

    save_script(folder, Mean(), torch.rand(2, 3, SIDE, SIDE))


def tensorflow_mean(folder: Path) -> None:
    import tensorflow as tf

    class Mean(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)])
        def __call__(self, image):
            return tf.reduce_mean(image, [1, 2, 3])

    module = Mean()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


MODELS = {"onnx": onnx_mean, "torch": torch_mean, "tensorflow": tensorflow_mean}


def write(folder: Path, kind: str, task: str) -> None:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        MODELS[kind](folder)
    (folder / "model.toml").write_text(
        f'framework = "{kind}"\ntask = "{task}"\n[input]\nheight = {SIDE}\nwidth = {SIDE}\n'
    )


@pytest.mark.parametrize("kind", sorted(MODELS))
async def test_one_number_for_each_image(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "model", kind, "regression")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    async with (
        serving_folder(tmp_path / "model") as rig,
        Client(f"static://127.0.0.1:{rig.port}") as client,
    ):
        found = await client.infer(pixels, "model", timeout_s=30)
    assert isinstance(found, Regression)
    assert found.value == pytest.approx(pixels.mean(), rel=1e-5)


def test_it_is_not_the_row_of_a_classifier(tmp_path: Path) -> None:
    write(tmp_path / "model", "onnx", "classification")
    with pytest.raises(ConfigurationError, match=r"the output is \[1\] for 1 images: expected one"):
        load(tmp_path / "model")
