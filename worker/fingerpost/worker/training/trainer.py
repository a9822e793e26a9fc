"""The training run, from a folder of images to a version that can be served."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import ConfigurationError, ImageError
from fingerpost.worker.models.manifest import (
    MANIFEST,
    BatchSpec,
    Framework,
    InputSpec,
    Layout,
    Manifest,
    write_manifest,
)
from fingerpost.worker.training.best_epoch import keep_best_epoch
from fingerpost.worker.training.dataset import CHANNELS, find_classes, read_image, scan, split
from fingerpost.worker.training.network import build_network, find_backbone, import_keras
from fingerpost.worker.training.progress import Progress, SilentProgress
from fingerpost.worker.training.report import (
    Evaluation,
    draw_confusion,
    library_versions,
    write_report,
)
from fingerpost.worker.training.versions import check_room, publish, staging_folder, writing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fingerpost.worker.training.config import TrainConfig
    from fingerpost.worker.training.dataset import Dataset, Sample, SkippedFile
    from fingerpost.worker.training.network import Network

__all__ = ["TrainResult", "train"]

_CACHE_BYTES: Final = 512 * 2**20
"""Decoded pixels that are kept between epochs: 3,500 images of 224 x 224, or any small data set.
All other images are decoded again in each epoch."""

_MAX_BATCH: Final = 32
"""Images in one batch that `model.toml` allows, which is also the default of a worker: larger
batches of these networks are no faster on a CPU."""


_WEIGHT_BYTES: Final = 4
"""Of a float32, of which each weight on disk is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of a training run.

    Attributes:
        folder: the new version, such as `models/flowers/3`.
        accuracy: share of the validation images whose best class is right, 0 to 1.
        guessing: the accuracy of always answering the most frequent class, 0 to 1.
        learned: whether `accuracy` cannot be explained by guessing; see `Evaluation.learned`.
        labels: the classes, in the order of the model's outputs.
        image_size: height and width in pixels that the model takes.
        training_images: how many it was trained on.
        validation_images: how many `accuracy` was measured on.
        skipped: files in the class folders that are not usable images.
        seconds: the duration of the whole run, reading and writing included.
    """

    folder: Path
    accuracy: float
    guessing: float
    learned: bool
    labels: tuple[str, ...]
    image_size: int
    training_images: int
    validation_images: int
    skipped: tuple[SkippedFile, ...]
    seconds: float


def train(config: TrainConfig, progress: Progress | None = None) -> TrainResult:
    """Train on `config.images` and write the next version into `config.out`.

    A version holds a SavedModel (`saved_model.pb`, `variables/`) whose `serving_default` takes
    uint8 `[N, S, S, 3]` in 0..255, RGB, and gives softmax float32 `[N, classes]`; `model.toml`,
    which describes it; `labels.txt`, one per line in the order of the outputs; `report.json` and
    `confusion.png`. Images are decoded as the workers do it, by `fingerpost.worker.images.decode`.

    The version appears by one rename when all files are written: an error, an interrupt or a crash
    leaves none. Sets the seeds of Python, NumPy and TensorFlow, so run it in a process of its own.

    Raises:
        ConfigurationError: the images, the backbone, its weights or `out` cannot be used, the disk
            is full, or the training diverged; the message is one line.
    """
    started = time.monotonic()
    progress = progress or SilentProgress()
    find_classes(config.images)  # before the imports: a mistyped folder is said at once
    keras = import_keras()
    backbone = find_backbone(config.network.backbone)
    with staging_folder(config.out) as folder:
        dataset = scan(config.images, progress)
        training, validation = split(dataset, config.validation_split, config.seed)
        image_size = config.network.image_size or backbone.size_for(dataset.median_side)
        keras.utils.set_random_seed(config.seed)
        progress.begin("loading weights", None)
        network = build_network(
            config, backbone, image_size=image_size, classes=len(dataset.labels)
        )
        check_room(config.out, network.serving.count_params() * _WEIGHT_BYTES)
        scores, epochs = _fit(config, network, training, validation, image_size, progress)
        evaluation = Evaluation.of(
            dataset.labels,
            [sample.label for sample in validation],
            scores.argmax(axis=1).tolist(),
        )
        progress.begin("writing", None)
        seconds = time.monotonic() - started
        facts = {
            "seconds": round(seconds, 1),
            "epochs": epochs,
            "backbone": backbone.name,
            "image_size": image_size,
            **_counts(dataset, training, validation),
            "config": config.to_json(),
            "versions": library_versions(),
        }
        with writing(config.out):
            network.serving.export(folder, verbose=False)
            (folder / "labels.txt").write_text(
                "".join(f"{label}\n" for label in dataset.labels), encoding="utf-8"
            )
            write_manifest(folder / MANIFEST, _manifest(image_size))
            draw_confusion(folder / "confusion.png", evaluation)
            write_report(folder / "report.json", evaluation, facts)
        return TrainResult(
            folder=publish(folder, config.out),
            accuracy=evaluation.accuracy,
            guessing=evaluation.guessing,
            learned=evaluation.learned,
            labels=dataset.labels,
            image_size=image_size,
            training_images=len(training),
            validation_images=len(validation),
            skipped=dataset.skipped,
            seconds=time.monotonic() - started,
        )


def _manifest(image_size: int) -> Manifest:
    return Manifest(
        framework=Framework.TENSORFLOW,
        labels="labels.txt",
        input=InputSpec(height=image_size, width=image_size, channels=CHANNELS, layout=Layout.NHWC),
        batch=BatchSpec(max=_MAX_BATCH),
    )


def _counts(
    dataset: Dataset, training: list[Sample], validation: list[Sample]
) -> dict[str, int | list[dict[str, str]]]:
    return {
        "training_images": len(training),
        "validation_images": len(validation),
        "skipped": [{"path": str(s.path), "reason": s.reason} for s in dataset.skipped],
    }


def _fit(
    config: TrainConfig,
    network: Network,
    training: list[Sample],
    validation: list[Sample],
    image_size: int,
    progress: Progress,
) -> tuple[NDArray[np.float32], int]:
    """Train; return the scores of the validation images, `[N, classes]`, and the epochs run."""
    import tensorflow as tf

    reader = _Reader(image_size)
    batches = reader.batches(training, config.fit.batch_size, seed=config.seed)
    steps = config.fit.min_epoch_steps or config.network.min_epoch_steps
    batches = batches.repeat(math.ceil(steps / len(batches)))
    held_back = reader.batches(validation, config.fit.batch_size)
    rounds = [("training", config.fit.learning_rate)]
    if config.fit.fine_tune:
        rounds.append(("fine-tuning", config.fit.learning_rate / 100))
    epochs = 0
    best_loss = np.inf
    try:
        for stage, rate in rounds:
            before = network.training.get_weights()
            if stage == "fine-tuning":
                network.backbone.trainable = True
            epochs += _run(config, network, batches, held_back, stage, rate, progress)
            loss = network.training.evaluate(held_back, verbose=0, return_dict=True)["loss"]
            if loss < best_loss:
                best_loss = loss
            else:  # a NaN comes here too
                network.training.set_weights(before)
        scores = network.serving.predict(held_back, verbose=0)
    except tf.errors.OpError as error:
        if reader.failure is None:
            raise
        raise ConfigurationError(f"an image changed while it was used: {reader.failure}") from error
    if not np.isfinite(best_loss):
        raise ConfigurationError(
            f"the training diverged with learning_rate {config.fit.learning_rate} and weights "
            f"{config.network.starting_weights!r}: give a smaller rate or other weights"
        )
    return scores, epochs


def _run(
    config: TrainConfig,
    network: Network,
    batches: Any,
    held_back: Any,
    stage: str,
    rate: float,
    progress: Progress,
) -> int:
    """Train until it no longer gets better, keep the best epoch's weights; return the epochs."""
    keras = import_keras()
    progress.begin(stage, config.fit.epochs * len(batches))
    best = keep_best_epoch(network.training, config.fit.patience)
    network.training.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = network.training.fit(
        batches,
        validation_data=held_back,
        epochs=config.fit.epochs,
        shuffle=False,  # the data set does that itself, and Keras warns otherwise
        verbose=0,
        callbacks=[
            best,
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: progress.advance(1),
                on_epoch_end=lambda epoch, logs: progress.epoch(
                    epoch + 1,
                    loss=logs["loss"],
                    accuracy=logs["accuracy"],
                    val_accuracy=logs["val_accuracy"],
                ),
            ),
        ],
    )
    return len(history.epoch)


class _Reader:
    """Reads the samples in TensorFlow's own threads.

    `failure` keeps an error from there, because TensorFlow replaces it by an error of its own.
    """

    def __init__(self, image_size: int) -> None:
        self.failure: str | None = None
        self._size = image_size
        room = _CACHE_BYTES // (image_size * image_size * CHANNELS)
        self._cached = functools.lru_cache(maxsize=room)(read_image)

    def batches(self, samples: list[Sample], batch_size: int, *, seed: int | None = None) -> Any:
        """A `tf.data.Dataset` of uint8 `[n, S, S, 3]` and int32 `[n]`; shuffled if seeded."""
        import tensorflow as tf

        paths = [sample.path for sample in samples]
        labels = tf.constant([sample.label for sample in samples], tf.int32)
        shape = (self._size, self._size, CHANNELS)

        def load(index: Any) -> tuple[Any, Any]:
            pixels = tf.numpy_function(lambda i: self._read(paths[i]), [index], tf.uint8)
            return tf.ensure_shape(pixels, shape), labels[index]

        indices = tf.data.Dataset.range(len(samples))
        if seed is not None:
            indices = indices.shuffle(len(samples), seed=seed)
        return (
            indices.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(batch_size)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            return self._cached(path, self._size)
        except (ImageError, OSError) as error:
            self.failure = f"{path}: {error}"
            raise
