"""What is LiteRT's own: quantized ends, names, batches of one, and files that are damaged."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.litert import LiteRtBackend, load
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from tests.support.builders import litert
from tests.support.colours import SIDE

RNG = np.random.default_rng(2)
IMAGES = [
    (RNG.random((SIDE, SIDE, 3)) * RNG.integers(40, 255, 3)).astype(np.uint8) for _ in range(13)
]


def load_from(folder: Path, **options: Any) -> LiteRtBackend:
    return load(find_model(folder, name="m"), LoadConfig(**options))


def own_scores(path: Path, integers: NDArray[Any]) -> NDArray[np.float32]:
    """The scores of LiteRT's own interpreter, image by image."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in integers:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"])[0])
    scale, point = result["quantization"]
    return (np.array(rows, np.float32) - point) * np.float32(scale)


def test_quantized_scores_are_the_interpreters_own(tmp_path: Path) -> None:
    litert.int8(tmp_path)
    backend = load_from(tmp_path)
    assert backend.input.dtype == "uint8"
    pixels = np.stack(IMAGES)
    expected = own_scores(tmp_path / "model.tflite", (pixels.astype(int) - 128).astype(np.int8))
    assert len(np.unique(expected)) > 10
    assert backend.predict(IMAGES) == pytest.approx(expected, abs=1e-7)
    # With the scaling of the model that it was made from: the same, by real numbers.
    (tmp_path / "model.toml").write_text('framework = "litert"\n[preprocessing]\nstd = 255\n')
    scaled = load_from(tmp_path)
    assert scaled.input.dtype == "float32"
    assert scaled.predict(IMAGES) == pytest.approx(expected, abs=1e-7)
    tensors = [(image / np.float32(255)).astype(np.float32) for image in IMAGES]
    assert scaled.predict(tensors) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [None, 1])
def test_any_batch_on_any_threads(tmp_path: Path, threads: int, batch: int | None) -> None:
    (litert.batch_of_one if batch else litert.floats)(tmp_path)
    backend = load_from(tmp_path, threads=threads)
    assert backend.input.batch is None
    assert backend.input.concurrent_batches == (1 if threads == 1 else 2)
    expected = np.concatenate([load_from(tmp_path).predict([image]) for image in IMAGES])
    assert len(np.unique(expected, axis=0)) == len(IMAGES)
    with ThreadPoolExecutor(backend.input.concurrent_batches) as callers:
        for count in (1, 2, 3, 5, 13):
            ends = (IMAGES[:count], IMAGES[-count:])
            first, last = callers.map(backend.predict, ends)
            assert first == pytest.approx(expected[:count], abs=1e-6)
            assert last == pytest.approx(expected[-count:], abs=1e-6)
    backend.close()
    assert not any(each.name.startswith("litert") for each in threading.enumerate())


def test_clear_errors(tmp_path: Path) -> None:
    litert.floats(tmp_path)
    table = {
        "input.name = 'pixels'": r"has no input 'pixels' \(input.name\); it has image",
        "output.name = 'softmax'": r"has no output 'softmax' \(output.name\); it has output_0",
        "input.height = 17": r"input.height is 17 .*the model takes 16",
        "input.signature = 'train'": r"no signature 'train' \(input.signature\); it has serving_d",
    }
    for toml, message in table.items():
        (tmp_path / "model.toml").write_text(f'framework = "litert"\n{toml}\n')
        with pytest.raises(ConfigurationError, match=message):
            load_from(tmp_path)
    (tmp_path / "model.toml").unlink()
    for device in ("cuda:0", "npu"):
        with pytest.raises(ConfigurationError, match=rf"{device}.*use (--device|auto,) cpu"):
            load_backend(find_model(tmp_path, name="m"), LoadConfig(device=device))
    whole = (tmp_path / "model.tflite").read_bytes()
    for content in (whole[: len(whole) // 2], b"no", b""):
        (tmp_path / "model.tflite").write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"LiteRT cannot load .*model.tflite.*: .*\w"):
            load_from(tmp_path)


def test_operators_that_litert_lacks(tmp_path: Path) -> None:
    import tensorflow as tf

    class Odd(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32)])
        def __call__(self, image):
            return tf.reduce_mean(image, [1, 2]) + 1

    module: Any = Odd()
    function = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    with pytest.raises(ConfigurationError, match=r"operators that are not part of LiteRT; convert"):
        load_from(tmp_path)
