"""What is OpenVINO's own: devices, precision, the formats that it reads, and damaged files."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.backends.openvino import OpenVinoBackend, load, open_model
from fingerpost.worker.models.files import find_model
from tests.support.builders import litert, onnx
from tests.support.builders.openvino import FRAMEWORK, channels_first, convert
from tests.support.colours import SIDE

RNG = np.random.default_rng(2)
IMAGES = [
    (RNG.random((SIDE, SIDE, 3)) * RNG.integers(40, 255, 3)).astype(np.uint8) for _ in range(13)
]


def load_from(folder: Path, **options: Any) -> OpenVinoBackend:
    return load(find_model(folder, name="m"), LoadConfig(**options))


@pytest.mark.parametrize("threads", [2, 3])
def test_a_batch_in_parts_answers_as_a_whole(tmp_path: Path, threads: int) -> None:
    channels_first(tmp_path)
    whole, divided = load_from(tmp_path, threads=1), load_from(tmp_path, threads=threads)
    assert (whole.input.concurrent_batches, divided.input.concurrent_batches) == (1, 2)
    expected = whole.predict(IMAGES)
    assert len(np.unique(expected, axis=0)) == len(IMAGES)
    for count in (1, 2, 3, 5, 13):
        assert divided.predict(IMAGES[:count]) == pytest.approx(expected[:count], abs=1e-6)
    divided.close()
    assert not any(each.name.startswith("openvino") for each in threading.enumerate())


def test_a_signal_after_a_model_was_closed_in_another_thread_ends_nothing(tmp_path: Path) -> None:
    """In a process of its own, which it ended: Python's handlers run on the signal stack."""
    channels_first(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALLED, tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


_SIGNALLED = """
import gc, os, signal, sys, threading
from pathlib import Path
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.openvino import load
from fingerpost.worker.models.files import find_model

signal.signal(signal.SIGUSR1, lambda *_: None)
models = [load(find_model(Path(sys.argv[1]), name="m"), LoadConfig())]

def close():
    models.pop().close()
    gc.collect()

thread = threading.Thread(target=close)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


def test_scores_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    onnx.write(tmp_path, ["N", 3, SIDE, SIDE])
    expected = load_backend(find_model(tmp_path, name="m"), LoadConfig()).predict(IMAGES)
    (tmp_path / "model.toml").write_text(FRAMEWORK)
    assert load_from(tmp_path).predict(IMAGES) == pytest.approx(expected, abs=1e-5)
    (tmp_path / "model.toml").unlink()
    convert(tmp_path)
    found = find_model(tmp_path, name="m")
    assert (found.path.suffix, found.weights) == (".xml", tmp_path / "model.bin")
    assert load(found, LoadConfig()).predict(IMAGES) == pytest.approx(expected, abs=1e-5)


def test_which_file_is_the_model(tmp_path: Path) -> None:
    """As before where another model is there; an XML file of other contents counts for nothing."""
    channels_first(tmp_path)
    (tmp_path / "annotation.xml").write_text("<annotation><object/></annotation>")
    assert find_model(tmp_path, name="m").path.name == "model.xml"
    (tmp_path / "model.tflite").write_bytes(b"-")
    with pytest.raises(ConfigurationError, match=r"found model.tflite, model.xml$"):
        find_model(tmp_path, name="m")
    (tmp_path / "model.toml").write_text(FRAMEWORK)
    assert find_model(tmp_path, name="m").path.name == "model.xml"
    (tmp_path / "model.toml").unlink()
    for name in ("weights.h5", "model.onnx"):
        (tmp_path / name).write_bytes(b"-")
        assert find_model(tmp_path, name="m").path.name == name


def test_precision_and_threads(tmp_path: Path) -> None:
    from fingerpost.worker.backends.openvino import compiled

    channels_first(tmp_path)
    files = find_model(tmp_path, name="m")
    core, model = open_model(files)
    found, device = compiled(core, model, files, LoadConfig(), 2, streams=2)
    assert device == "cpu"
    for name, expected in (
        ("INFERENCE_PRECISION_HINT", openvino.Type.f32),
        ("ENABLE_CPU_PINNING", False),
        ("INFERENCE_NUM_THREADS", 2),
        ("NUM_STREAMS", 2),
    ):
        assert found.get_property(name) == expected


def test_bfloat16_where_the_processor_has_it(tmp_path: Path) -> None:
    channels_first(tmp_path)
    expected = load_from(tmp_path).predict(IMAGES)
    (tmp_path / "model.toml").write_text(f'{FRAMEWORK}[runtime]\nprecision = "bfloat16"\n')
    assert load_from(tmp_path).predict(IMAGES) == pytest.approx(expected, abs=0.05)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    channels_first(tmp_path)
    for device, name in (("gpu:7", r"GPU\.7"), ("cuda:0", "cuda:0")):
        with pytest.raises(ConfigurationError, match=rf"{name}.*use --device cpu"):
            load_from(tmp_path, device=device)
    assert load_from(tmp_path, device="auto").device == "cpu"
    onnx.write(tmp_path, ["N", 3, SIDE, SIDE])
    with pytest.raises(ConfigurationError, match=r"--device npu is for models that OpenVINO runs"):
        load_backend(find_model(tmp_path / "model.onnx", name="m"), LoadConfig(device="npu"))


def test_clear_errors(tmp_path: Path) -> None:
    channels_first(tmp_path)
    table = {
        "input.name = 'pixels'": r"has no input 'pixels' \(input.name\); it has image",
        "output.name = 'softmax'": r"has no output 'softmax' \(output.name\); it has scores",
        "input.height = 17": r"input.height is 17 .*the model takes 16",
    }
    for toml, message in table.items():
        (tmp_path / "model.toml").write_text(f"{FRAMEWORK}{toml}\n")
        with pytest.raises(ConfigurationError, match=message):
            load_from(tmp_path)
    (tmp_path / "model.toml").unlink()
    xml, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:3])
    with pytest.raises(ConfigurationError, match=r"OpenVINO cannot load .*model.xml: .*weights"):
        load_from(tmp_path)
    weights.unlink()
    with pytest.raises(ConfigurationError, match=r"model.xml needs one .bin beside it.*found none"):
        load_from(tmp_path)
    weights.write_bytes(whole)
    xml.write_text(xml.read_text()[:900])
    with pytest.raises(ConfigurationError, match=r"OpenVINO cannot load .*model.xml"):
        load_from(tmp_path)


def test_integers_without_a_scale(tmp_path: Path) -> None:
    litert.int8(tmp_path)
    (tmp_path / "model.toml").write_text(FRAMEWORK)
    with pytest.raises(ConfigurationError, match=r'\(int8\).*use framework = "litert"'):
        load_from(tmp_path)
