"""What is Caffe's own: a prototxt in every spelling, blue first, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.caffe import CaffeBackend, load
from fingerpost.worker.models.files import find_model
from tests.support.builders.caffe import BGR, INPUT_LAYER, LAYERS, OLD_INPUT, write
from tests.support.colours import SIDE

RED = np.full((SIDE, SIDE, 3), (250, 10, 10), np.uint8)


def load_from(folder: Path, **options: Any) -> CaffeBackend:
    return load(find_model(folder, name="m"), LoadConfig(**options))


@pytest.mark.parametrize(
    "spelling",
    [
        INPUT_LAYER,
        OLD_INPUT,
        'input: "data" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }',
        'layer{name:"data" type:"Input" top:"data" input_param{shape{dim:1 dim:3 dim:16 dim:16}}}',
    ],
)
def test_every_spelling_of_the_input(tmp_path: Path, spelling: str) -> None:
    write(tmp_path, spelling + LAYERS)
    backend = load_from(tmp_path, threads=1)
    assert backend.input.tensor_shape == (3, SIDE, SIDE)
    assert backend.predict([RED] * 3).argmax(axis=1).tolist() == [0, 0, 0]
    assert backend.framework == f"opencv {cv2.__version__}"


def test_results_are_not_overwritten_by_the_next_run(tmp_path: Path) -> None:
    write(tmp_path, INPUT_LAYER + LAYERS)
    backend = load_from(tmp_path)
    first = backend.predict([RED])
    kept = first.copy()
    backend.predict([255 - RED])
    assert np.array_equal(first, kept)


def test_one_of_several_outputs(tmp_path: Path) -> None:
    more = 'layer { name: "extra" type: "Softmax" bottom: "pool" top: "extra" }\n'
    write(tmp_path, INPUT_LAYER + LAYERS + more)
    with pytest.raises(ConfigurationError, match=r"2 outputs \((prob, extra|extra, prob)\): name"):
        load_from(tmp_path)
    write(tmp_path, INPUT_LAYER + LAYERS + more, toml=f'{BGR}[output]\nname = "fc"\n')
    logits = load_from(tmp_path).predict([RED])
    assert logits[0] == pytest.approx([250 / 16, 10 / 16, 10 / 16])


def test_clear_errors(tmp_path: Path) -> None:
    table = {
        'layer { name: "data" type: "Data" top: "data" }': "not the one for training",
        OLD_INPUT + 'input: "more"': r"2 inputs \(data, more\)",
        'input: "data"': r"is float32 \[\?\]; expected pixels",
        INPUT_LAYER + "layer { nonsense }": r"deploy.prototxt with .*caffemodel cannot be loaded",
    }
    for prototxt, message in table.items():
        write(tmp_path, prototxt + LAYERS)
        with pytest.raises(ConfigurationError, match=message):
            load_from(tmp_path)
    write(tmp_path, INPUT_LAYER + LAYERS, toml=f'{BGR}[output]\nname = "softmax"\n')
    with pytest.raises(ConfigurationError, match="no output 'softmax'; its last layers .* prob"):
        load_from(tmp_path)
    write(tmp_path, INPUT_LAYER + LAYERS)
    with pytest.raises(ConfigurationError, match="run on the CPU, not on cuda:0"):
        load_from(tmp_path, device="cuda:0")
    (tmp_path / "colours.caffemodel").write_bytes(b"no weights here")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load_from(tmp_path)


def test_an_opencv_that_has_dropped_caffe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, INPUT_LAYER + LAYERS)
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    with pytest.raises(ConfigurationError, match=r"pip install 'opencv-python-headless>=4.10,<5'"):
        load_from(tmp_path)
