"""Real training runs on real digits, and what they leave on disk."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.support.later import later
from tests.support.small_disk import small_disk
from tests.support.training import train_config

from fingerpost.deploy.demo.digits import write_digits
from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import Framework, Layout, Preprocessing
from fingerpost.worker.training import SilentProgress, TrainResult, train
from fingerpost.worker.training.dataset import read_image
from fingerpost.worker.training.network import build_network, find_backbone
from fingerpost.worker.training.versions import check_room

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = later("tensorflow")

if TYPE_CHECKING:
    from pathlib import Path

# NumPy 2.4 says so of TensorFlow 2.21's variables, whenever Keras saves or loads weights.


class Recorder(SilentProgress):
    """Keeps what it is told, and raises once that many units are done."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.stages: list[str] = []
        self.accuracies: list[float] = []
        self._left = fail_after

    def begin(self, stage: str, total: int | None) -> None:
        self.stages.append(stage)

    def advance(self, units: int) -> None:
        if self._left is not None and self.stages[-1] == "training":
            self._left -= units
            if self._left <= 0:
                raise KeyboardInterrupt

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        self.accuracies.append(val_accuracy)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits")).train


def _part(source: Path, target: Path, *, labels: str, each: int) -> Path:
    for label in labels:
        (target / label).mkdir(parents=True)
        for path in sorted((source / label).iterdir())[:each]:
            shutil.copy(path, target / label)
    return target


def _small() -> Any:
    return find_backbone("small").build(weights=None, include_top=False, input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Recorder]:
    """The small network on four digits, with a damaged image among them."""
    root = tmp_path_factory.mktemp("trained")
    images = _part(digits, root / "images", labels="0146", each=100)
    (images / "4" / "cut.png").write_bytes((images / "4" / "0004.png").read_bytes()[:50])
    recorder = Recorder()
    config = train_config(
        images=images,
        out=root / "models" / "digits",
        backbone="small",
        epochs=6,
        batch_size=16,
        min_epoch_steps=1,
    )
    return train(config, recorder), recorder


def test_the_small_network_learns_four_digits(trained: tuple[TrainResult, Recorder]) -> None:
    result, recorder = trained
    assert result.accuracy >= 0.95
    assert (result.labels, result.image_size) == (("0", "1", "4", "6"), 32)
    assert (result.training_images, result.validation_images) == (340, 60)
    assert [item.path.name for item in result.skipped] == ["cut.png"]
    assert recorder.stages == ["reading images", "loading weights", "training", "writing"]
    assert result.accuracy == pytest.approx(max(recorder.accuracies), abs=0.05)


def test_the_version_is_whole_and_found_by_the_worker(
    trained: tuple[TrainResult, Recorder],
) -> None:
    folder = trained[0].folder
    assert folder.name == "1"
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"saved_model.pb", "variables", "labels.txt", "report.json", "confusion.png"}
    found = find_model(folder.parent)
    assert (found.name, found.version, found.path) == ("digits", "1", folder)
    assert found.labels == ("0", "1", "4", "6")
    manifest = found.manifest
    assert not found.inferred
    assert (manifest.framework, manifest.labels) == (Framework.TENSORFLOW, "labels.txt")
    assert (manifest.input.height, manifest.input.width, manifest.input.channels) == (32, 32, 3)
    assert (manifest.input.layout, manifest.preprocessing) == (Layout.NHWC, Preprocessing())
    assert manifest.batch.max == 32
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["accuracy"] == trained[0].accuracy
    assert report["config"]["backbone"] == "small"
    assert report["skipped"][0]["path"].endswith("cut.png")
    assert sum(map(sum, report["confusion"])) == 60
    assert {"keras", "numpy", "pillow", "python"} < report["versions"].keys()


def test_the_saved_model_takes_raw_pixels(
    trained: tuple[TrainResult, Recorder], digits: Path
) -> None:
    result = trained[0]
    serve = tf.saved_model.load(str(result.folder)).signatures["serving_default"]
    (spec,) = serve.structured_input_signature[1].values()
    assert (spec.dtype, spec.shape.as_list()) == (tf.uint8, [None, 32, 32, 3])
    (output,) = serve.structured_outputs.values()
    assert (output.dtype, output.shape.as_list()) == (tf.float32, [None, 4])
    right = total = 0
    for index, label in enumerate(result.labels):  # images that it never saw
        paths = sorted((digits / label).iterdir())[100:]
        pixels = np.stack([read_image(path, 32) for path in paths])
        (scores,) = serve(tf.constant(pixels)).values()
        np.testing.assert_allclose(scores.numpy().sum(axis=1), 1, rtol=1e-5)
        right += int((scores.numpy().argmax(axis=1) == index).sum())
        total += len(paths)
    assert right / total >= 0.93


def test_keras_and_the_saved_model_answer_alike(digits: Path, tmp_path: Path) -> None:
    config = train_config(images=digits, out=tmp_path / "x", backbone="small", flip=True)
    network = build_network(config, find_backbone("small"), image_size=32, classes=10)
    network.serving.export(tmp_path / "x", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "x")).signatures["serving_default"]
    pixels = np.stack([read_image(path, 32) for path in sorted((digits / "3").iterdir())[:9]])
    (scores,) = serve(tf.constant(pixels)).values()
    expected = network.serving.predict(pixels, verbose=0)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-6)
    # Only while training are the images varied.
    np.testing.assert_allclose(network.training.predict(pixels, verbose=0), expected, rtol=1e-4)
    assert not np.allclose(network.training(pixels, training=True), expected, rtol=1e-4)


def test_transfer_from_a_weights_file_keeps_the_backbone_and_adds_a_version(
    digits: Path, tmp_path: Path
) -> None:
    """With the small network: a large one takes half a minute and runs the same code."""
    source = _small()
    source.save_weights(tmp_path / "own.weights.h5")
    images = _part(digits, tmp_path / "images", labels="07", each=6)
    out = tmp_path / "models" / "digits"
    (out / "4").mkdir(parents=True)
    config = train_config(
        images=images,
        out=out,
        backbone="small",
        weights=tmp_path / "own.weights.h5",
        image_size=32,
        epochs=1,
        min_epoch_steps=1,
    )
    result = train(config)
    assert result.folder == out / "5"
    served = tf.saved_model.load(str(result.folder))
    pixels = np.stack([read_image(path, 32) for path in sorted((digits / "7").iterdir())[:4]])
    (scores,) = served.signatures["serving_default"](tf.constant(pixels)).values()
    assert scores.shape == (4, 2)
    kernel = source.weights[0].numpy()
    kept = [v.numpy() for v in served.variables if v.shape == kernel.shape]
    assert any(np.array_equal(kernel, value) for value in kept)


@pytest.mark.parametrize("weights", ["none", "own"])
def test_a_backbone_without_weights_is_trained_whole(weights: str, tmp_path: Path) -> None:
    """With weights, its last layer alone."""
    backbone = find_backbone("mobile-net")
    own = tmp_path / "own.weights.h5"
    source = backbone.build(weights=None, include_top=False, input_shape=(32, 32, 3))
    source.save_weights(own)
    config = train_config(
        images=tmp_path / "images",
        out=tmp_path / "digits",
        backbone="mobile-net",
        weights=own if weights == "own" else "none",
        augment=False,
    )
    network = build_network(config, backbone, image_size=32, classes=2)
    top = [(1024, 2), (2,)]
    trained = [tuple(each.shape) for each in network.training.trainable_weights]
    loaded = map(np.array_equal, network.backbone.get_weights(), source.get_weights())
    if weights == "own":
        assert trained == top
        assert all(loaded)
    else:
        assert not all(loaded)
        assert (3, 3, 3, 32) in trained
        assert len(trained) == len(network.backbone.trainable_weights) + len(top)


def test_fine_tuning_is_a_second_stage(digits: Path, tmp_path: Path) -> None:
    images = _part(digits, tmp_path / "images", labels="07", each=8)
    weights = tmp_path / "small.weights.h5"
    _small().save_weights(weights)
    out = tmp_path / "digits"
    config = train_config(
        images=images,
        out=out,
        backbone="small",
        weights=weights,
        epochs=1,
        min_epoch_steps=1,
        fine_tune=True,
    )
    recorder = Recorder()
    train(config, recorder)
    assert recorder.stages[2:4] == ["training", "fine-tuning"]
    assert len(recorder.accuracies) == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_sixty_images_are_enough_for_ten_digits(digits: Path, tmp_path: Path) -> None:
    """Two steps show all of them; six epochs of two steps without progress mean nothing.

    At 16 x 16 a step takes a third of the time that it takes at 32 x 32, and the digits have 8 x 8
    pixels; the training would go on after these ten epochs.
    """

    class Steps(SilentProgress):
        count = 0

        def advance(self, units: int) -> None:
            self.count += units

    images = _part(digits, tmp_path / "images", labels="0123456789", each=6)
    config = train_config(
        images=images, out=tmp_path / "digits", backbone="small", image_size=16, epochs=10
    )
    steps = Steps()
    result = train(config, steps)
    assert (result.training_images, result.guessing, result.learned) == (50, 0.1, True)
    # Before: 44 steps and 80 to 90 % right by seed; with 300 steps 90 to 100 %.
    assert steps.count >= 60 + 7 * 40  # the images that are read count too
    assert result.accuracy >= 0.9


def test_a_full_disk_is_one_line(digits: Path, tmp_path: Path) -> None:
    images = _part(digits, tmp_path / "images", labels="01", each=4)
    out = tmp_path / "disk" / "digits"
    config = train_config(images=images, out=out, backbone="small", epochs=1, min_epoch_steps=1)
    with (
        small_disk(tmp_path / "disk", 1600),
        pytest.raises(ConfigurationError, match="cannot be written to .*: nothing was left") as it,
    ):
        train(config)
    assert "\n" not in str(it.value)
    assert not out.exists()


def test_too_little_room_is_said_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"and the model needs 1,000,000,000,000\.0 MB"):
        check_room(tmp_path, 10**18)


def test_a_mistyped_folder_is_said_before_keras_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported() -> None:
        raise AssertionError("Keras is imported, which takes seconds")

    monkeypatch.setattr("fingerpost.worker.training.trainer.import_keras", imported)
    with pytest.raises(ConfigurationError, match="no folder"):
        train(train_config(images=tmp_path / "none", out=tmp_path / "x"))


def test_an_interrupt_leaves_no_version(digits: Path, tmp_path: Path) -> None:
    images = _part(digits, tmp_path / "images", labels="01", each=20)
    out = tmp_path / "models" / "digits"
    config = train_config(images=images, out=out, backbone="small", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        train(config, Recorder(fail_after=12))
    assert not out.exists()


def test_an_image_that_vanishes_is_named(digits: Path, tmp_path: Path) -> None:
    images = _part(digits, tmp_path / "images", labels="01", each=5)

    class Vanish(SilentProgress):
        def begin(self, stage: str, total: int | None) -> None:
            if stage == "training":
                shutil.rmtree(images / "1")

    config = train_config(images=images, out=tmp_path / "digits", backbone="small")
    with pytest.raises(ConfigurationError, match=r"changed while it was used: .*\.png"):
        train(config, Vanish())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "mobilnetv2"}, "no backbone 'mobilnetv2': give MobileNetV2"),
        ({"backbone": "qqq"}, "no backbone 'qqq': give MobileNetV2"),
        ({"image_size": 16, "weights": "none"}, "image_size 16: .*at least 32x32"),
        ({"weights": "wrong.weights.h5"}, "does not hold the weights of MobileNetV2"),
        ({"weights": "text.h5"}, "does not hold the weights of MobileNetV2"),
        ({"weights": "text.bin"}, "does not hold the weights of MobileNetV2"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    digits: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "text.bin").write_text("not HDF5")
    if changes.get("weights") == "wrong.weights.h5":
        _small().save_weights(tmp_path / "wrong.weights.h5")
    if changes.get("weights", "none") != "none":
        changes = changes | {"weights": tmp_path / changes["weights"]}
    images = _part(digits, tmp_path / "images", labels="01", each=2)
    config = train_config(**{"images": images, "out": tmp_path / "x", "image_size": 32} | changes)
    with pytest.raises(ConfigurationError, match=message) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_imagenet_weights_without_a_network_fail_soon_and_say_what_to_do(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine of its own without a network, whatever this one has: an empty cache, and a proxy
    # that is not there.
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    images = _part(digits, tmp_path / "images", labels="01", each=2)
    config = train_config(images=images, out=tmp_path / "x", image_size=96)
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"give --weights PATH .* or --weights none"):
        train(config)
    assert time.monotonic() - started < 60


def test_a_loss_that_is_no_number_is_an_error(digits: Path, tmp_path: Path) -> None:
    images = _part(digits, tmp_path / "images", labels="01", each=10)
    broken = _small()
    broken.set_weights([np.full_like(value, 1e38) for value in broken.get_weights()])
    broken.save_weights(tmp_path / "huge.weights.h5")
    config = train_config(
        images=images,
        out=tmp_path / "digits",
        backbone="small",
        weights=tmp_path / "huge.weights.h5",
        epochs=1,
    )
    with pytest.raises(ConfigurationError, match="diverged"):
        train(config)
    assert not (tmp_path / "digits").exists()
