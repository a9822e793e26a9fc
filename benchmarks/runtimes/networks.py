"""MobileNetV2 that knows handwritten digits, in the formats that the runtimes read.

Agreement between two versions of a network says little where the weights are random, because all
scores are nearly alike then. So it is trained, in some minutes on two cores: an image of 224 x 224
shows the same digit of the demo 4 x 4 times, and the network learns from a single one at 56 x 56.
It keeps the 1,000 outputs of the network for ImageNet, so that its speed is that one's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.harness.environments import CACHE
from fingerpost.deploy.demo.digits import write_digits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["digits", "formats", "run_by", "trained"]

_SIDE = 56
_TILES = 4
_TRAIN = """
import sys
from pathlib import Path
import keras
import numpy as np
from PIL import Image

folder, out, side, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
keras.utils.set_random_seed(1)
files = sorted(folder.glob("*/*.png"))
np.random.default_rng(1).shuffle(files)
images = np.stack([np.asarray(Image.open(each)) for each in files])
labels = np.array([int(each.parent.name) for each in files])

def network(side):
    core = keras.applications.MobileNetV2(weights=None, input_shape=(side, side, 3))
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999 needs thousands of steps
    inputs = keras.Input((side, side, 3))
    return keras.Model(inputs, core(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)))

small, whole = network(side), network(images.shape[1])
single = images[:, :side, :side]
for rate, count in ((2e-3, epochs), (2e-4, 1), (2e-5, 1)):
    loss = "sparse_categorical_crossentropy"
    small.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    small.fit(single, labels, batch_size=32, epochs=count, verbose=2)
whole.set_weights(small.get_weights())
some = images[:704].astype("float32")
for start in range(0, len(some), 32):  # the statistics of whole images differ, at their edges
    whole(some[start : start + 32], training=True)
core = whole.layers[-1]
features = keras.Model(core.input, core.layers[-2].output)
seen = features.predict(some / 127.5 - 1, batch_size=32, verbose=0)
dense = core.layers[-1]  # and so the last layer learns again from these
head = keras.Sequential([keras.Input(seen.shape[1:]), dense])
head.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
head.fit(seen, labels[: len(some)], batch_size=32, epochs=60, verbose=0)
whole.export(out, format="tf_saved_model", verbose=False)
"""
_EPOCHS = 6
_LITE = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from PIL import Image

saved, out, images = tf.saved_model.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
function = tf.function(lambda image: saved.serve(image))
one = function.get_concrete_function(tf.TensorSpec((1, 224, 224, 3), tf.float32))
converter = tf.lite.TFLiteConverter.from_concrete_functions([one], saved)
if sys.argv[4] == "int8":
    files = sorted(images.glob("*/*.png"))[:: len(list(images.glob("*/*.png"))) // 128][:128]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [np.asarray(Image.open(each), np.float32)[None]] for each in files
    )
made = converter.convert()  # before its folder is there: one that is broken off leaves none
out.mkdir(parents=True)
(out / "model.tflite").write_bytes(made)
"""


def digits() -> tuple[Path, Path]:
    """The folders of the images to learn from, and of those held out: classes `0` to `9`."""
    folder = CACHE / "pictures" / "digits"
    small = write_digits(folder / "small")
    for source in (small.train, small.held_out):
        for path in source.glob("*/*.png"):
            out = folder / path.relative_to(folder / "small")
            if out.exists():
                continue
            tile = Image.open(path).convert("RGB").resize((_SIDE, _SIDE))
            whole = Image.new("RGB", (_SIDE * _TILES, _SIDE * _TILES))
            for place in range(_TILES**2):
                whole.paste(tile, (place % _TILES * _SIDE, place // _TILES * _SIDE))
            out.parent.mkdir(parents=True, exist_ok=True)
            whole.save(out)
    return folder / small.train.name, folder / small.held_out.name


def trained() -> Path:
    """The network as a SavedModel, trained at the first call."""
    saved = CACHE / "models" / "digits-mobilenet" / "1"
    if not (saved / "saved_model.pb").exists():
        saved.parent.mkdir(parents=True, exist_ok=True)
        learn, _ = digits()
        command = [sys.executable, "-c", _TRAIN, learn, saved, str(_SIDE), str(_EPOCHS)]
        subprocess.run(command, check=True, timeout=3000)
    return saved


def formats() -> dict[str, Path]:
    """The trained network by name: as a SavedModel, in ONNX and in TensorFlow Lite, FP32 and INT8.

    ONNX by `fingerpost model export` and `quantize`; TensorFlow Lite by TensorFlow's own converter,
    with as many images to measure ranges on.
    """
    saved, (learn, _) = trained(), digits()
    folder = saved.parent.parent
    made = {
        "SavedModel, FP32": saved,
        "ONNX, FP32": folder / "digits-onnx" / "1",
        "ONNX, INT8": folder / "digits-onnx-int8" / "1",
        "TFLite, FP32": folder / "digits-tflite" / "1",
        "TFLite, INT8": folder / "digits-tflite-int8" / "1",
    }
    model = [sys.executable, "-m", "fingerpost.deploy.cli", "model"]
    commands: dict[str, list[object]] = {
        "ONNX, FP32": [*model, "export", saved, "--images", learn, "--out", made["ONNX, FP32"]],
        "ONNX, INT8": [
            *model, "quantize", made["ONNX, FP32"], "--images", learn, "--to", made["ONNX, INT8"],
        ],
        "TFLite, FP32": [sys.executable, "-c", _LITE, saved, made["TFLite, FP32"], learn, "fp32"],
        "TFLite, INT8": [sys.executable, "-c", _LITE, saved, made["TFLite, INT8"], learn, "int8"],
    }  # fmt: skip
    for name, command in commands.items():
        if not made[name].exists():
            subprocess.run([str(each) for each in command], check=True, timeout=1200)
    return made


def run_by(framework: str, model: Path) -> Path:
    """A version's folder with the same file, whose `model.toml` names this framework."""
    (file,) = [each for each in model.iterdir() if each.suffix in (".onnx", ".tflite")]
    folder = model.parent.parent / f"{model.parent.name}-{framework}" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)
    (folder / "model.toml").write_text(f'framework = "{framework}"\nfile = "{file.name}"\n')
    return folder
