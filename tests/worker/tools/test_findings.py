"""What is probably wrong with a model that runs, and what is not: real models of each kind."""

from __future__ import annotations

import importlib
import re
import textwrap
from pathlib import Path

import pytest
from onnx import TensorProto

from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.findings import Finding, find_problems, manifest_lines
from tests.support.builders.onnx import write
from tests.support.colours import SIDE

SHAPE = ("N", 3, SIDE, SIDE)
# Channels' means from 0 to 255 or to 1 become logits from 0 to 16.
MADE_FOR_BYTES = 1 / 16
MADE_FOR_ONE = 16.0


def found(folder: Path, *, given: bool = False) -> tuple[list[Finding], list[str]]:
    """The findings, and the lines to write."""
    files = find_model(folder, served=False)
    backend = load_backend(files, LoadConfig(device="cpu"))
    problems = find_problems(files, backend, scaling_given=given)
    backend.close()
    return problems, manifest_lines(files, problems)


def messages(folder: Path) -> list[str]:
    return [each.message for each in found(folder)[0]]


@pytest.mark.parametrize(
    "builder",
    [
        "onnx.channels_first",
        "onnx.channels_last",
        "onnx.uint8",
        "onnx.fixed_batch",
        "onnx.open_size",
        "torch.exported",
        "torch.torchscript",
        "tensorflow.trained",
        "caffe.input_layer",
    ],
)
def test_nothing_is_wrong_with_these(tmp_path: Path, builder: str) -> None:
    module, _, name = builder.partition(".")
    getattr(importlib.import_module(f"tests.support.builders.{module}"), name)(tmp_path)
    assert messages(tmp_path) == []


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("Identity", r"the scores are not probabilities: they go from .* If they are logits"),
        ("LogSoftmax", "the scores are logarithms of probabilities"),
    ],
)
def test_a_softmax_is_missing(tmp_path: Path, end: str, kind: str) -> None:
    write(tmp_path, SHAPE, end=end)
    problems, lines = found(tmp_path)
    (message,) = (each.message for each in problems)
    assert re.match(kind, message)
    assert lines == ['framework = "onnx"', "[output]", 'activation = "softmax"']
    (tmp_path / "model.toml").write_text("\n".join(lines))
    assert found(tmp_path) == ([], [])


def test_scores_of_several_labels(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, end="Sigmoid")
    problems, lines = found(tmp_path)
    (message,) = (each.message for each in problems)
    assert message.startswith("the scores are between 0 and 1, but those of an image sum to ")
    assert lines == ['framework = "onnx"', 'task = "multilabel"']
    (tmp_path / "model.toml").write_text("\n".join(lines))
    assert found(tmp_path) == ([], [])


def test_an_embedding(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, end="LpNormalization")
    problems, lines = found(tmp_path)
    (message,) = (each.message for each in problems)
    assert "a vector of length 1, which is an embedding" in message
    assert "/v1/infer/NAME returns all of it" in message
    assert lines == ['framework = "onnx"', 'task = "embedding"']
    (tmp_path / "model.toml").write_text("\n".join(lines))
    (tmp_path / "labels.txt").unlink()
    assert found(tmp_path) == ([], [])


def test_a_softmax_twice(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, toml='[output]\nactivation = "softmax"\n')
    problems, lines = found(tmp_path)
    (message,) = (each.message for each in problems)
    assert message.startswith("the softmax is applied twice")
    assert lines == ["[output]", 'activation = "none"']


@pytest.mark.parametrize("end", ["Softmax", "Identity", "Sigmoid", "LogSoftmax"])
def test_pixels_go_in_unscaled(tmp_path: Path, end: str) -> None:
    write(tmp_path, SHAPE, end=end, weight=MADE_FOR_ONE)
    problems, lines = found(tmp_path)
    message = problems[-1].message
    assert message.startswith("pixels probably go in unscaled: the model gets 0 to 255")
    assert lines[-3:] == ["[preprocessing]", "mean = 0.0", "std = 255.0"]
    (tmp_path / "model.toml").write_text("\n".join(lines))
    assert not [each for each in messages(tmp_path) if "unscaled" in each]
    # One that is made for what goes in is not blamed.
    (tmp_path / "model.toml").unlink()
    write(tmp_path, SHAPE, end=end, weight=MADE_FOR_BYTES)
    assert not [each for each in messages(tmp_path) if "unscaled" in each]


def test_who_says_that_0_to_255_is_meant_is_believed(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, weight=MADE_FOR_ONE)
    assert found(tmp_path, given=True)[0] == []
    assert len(messages(tmp_path)) == 1
    (tmp_path / "model.toml").write_text('framework = "onnx"\n[preprocessing]\nstd = 1.0')
    assert messages(tmp_path) == []


def test_bytes_are_not_scaled(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, dtype=TensorProto.UINT8, weight=MADE_FOR_ONE)
    assert messages(tmp_path) == []


def test_pixels_are_scaled_twice(tmp_path: Path) -> None:
    write(tmp_path, SHAPE, toml="[preprocessing]\nstd = 255.0")
    problems, lines = found(tmp_path)
    (message,) = (each.message for each in problems)
    assert message.startswith("pixels are probably scaled twice")
    assert lines == ["[preprocessing]", "mean = 0.0", "std = 1.0"]


def test_there_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, SHAPE)
    (tmp_path / "labels.txt").unlink()
    (message,) = messages(tmp_path)
    assert "answers name the classes by their numbers" in message
    assert str(tmp_path / "labels.txt") in message


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("1 / 0", "the model fails on a generated image: division by zero"),
        ("np.sqrt(-means)", "some scores are not finite, of which images get an error"),
    ],
)
def test_a_model_that_fails_on_a_generated_image(tmp_path: Path, scores: str, message: str) -> None:
    """The warm-up sends gray images only."""
    code = f"""
        def predict(self, batch):
            means = batch.mean(axis=(1, 2))
            if np.ptp(means) == 0:
                return np.full((len(batch), 3), 1 / 3)
            with np.errstate(invalid="ignore"):
                return {scores}
    """
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\nclass Mine:\n    height = width = 16\n\n"
        "    def __init__(self, folder):\n        pass\n"
        + textwrap.indent(textwrap.dedent(code), "    ")
    )
    (tmp_path / "model.toml").write_text('framework = "python"\nclass = "mine:Mine"')
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    assert messages(tmp_path) == [message]


def test_a_new_manifest_keeps_what_the_file_implied(tmp_path: Path) -> None:
    """Beside a `model.toml`, the pixels of a frozen graph are no longer scaled to 0..1."""
    (tmp_path / "graph.pb").write_bytes(b"-")
    files = find_model(tmp_path, served=False)
    softmax = Finding(message="", toml=("[output]", 'activation = "softmax"'))
    assert manifest_lines(files, [softmax]) == [
        'framework = "tensorflow"',
        "[preprocessing]",
        "mean = 0.0",
        "std = 255.0",
        "[output]",
        'activation = "softmax"',
    ]
    scaled = Finding(message="", toml=("[preprocessing]", "mean = 0.0", "std = 1.0"))
    assert manifest_lines(files, [scaled])[1:] == ["[preprocessing]", "mean = 0.0", "std = 1.0"]
    assert manifest_lines(files, []) == []
