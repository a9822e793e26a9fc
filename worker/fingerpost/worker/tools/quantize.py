"""Makes an INT8 version of a classifier, and compares its answers with the original's.

Ranges are measured on images that are decoded and scaled as a worker does it. Where there are
enough images, the answers are compared on others than those: ranges fit their own images best.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from fingerpost.errors import AccuracyLost, ConfigurationError, ImageError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.backends.pixels import stack
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import MANIFEST, Framework, write_manifest
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.repository.loader import check_labels
from fingerpost.worker.tools.export import LABELS, MODEL, export_onnx, write_labels
from fingerpost.worker.tools.int8 import Calibration, import_quantizer, write_int8
from fingerpost.worker.tools.labelled_images import LabelledImage, labelled_images, thinned
from fingerpost.worker.training.report import library_versions, write_report
from fingerpost.worker.training.versions import publish, staging_folder

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, ImageInput, Item
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["REPORT", "QuantizeConfig", "Quantized", "quantize"]

REPORT: Final = "report.json"
_CPU: Final = LoadConfig(device="cpu")
_BATCH: Final = 8
_EXPORTED: Final = 0.001
"""Largest difference of a score with which a TensorFlow model is taken as ONNX; see
`fingerpost model export`."""
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig:
    """How a model is quantized, and what is accepted.

    Attributes:
        method: see `Calibration`. The default, `minmax`, is the fastest and seldom the worst.
        calibration_images: most images to measure ranges on, 1 to 100,000. More take longer, and
            find larger extremes; with 128, the default, most networks have shown theirs.
        compared_images: most images to compare the answers on, 1 to 1,000,000. More make the
            accuracy more exact: of 1,000, the default, its standard error is 0.3 to 1.6 points.
        max_loss: the largest accepted loss of accuracy, 0 to 1. Raising it accepts worse models;
            0.01, the default, is a point of 100, which most networks stay below.
    """

    method: Calibration = Calibration.MINMAX
    calibration_images: int = 128
    compared_images: int = 1000
    max_loss: float = 0.01

    def __post_init__(self) -> None:
        for key, most in (("calibration_images", 100_000), ("compared_images", 1_000_000)):
            if not 1 <= getattr(self, key) <= most:
                raise ConfigurationError(f"{key} is {getattr(self, key)}: it must be 1 to {most}")
        if not 0 <= self.max_loss <= 1:
            raise ConfigurationError(f"max_loss is {self.max_loss}: it must be 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized model, and how it answers.

    Attributes:
        folder: the new version.
        calibration_images: how many images the ranges were measured on.
        images: how many the answers were compared on.
        agreed: how many of these have the same best class as by the original.
        labelled: how many of these lay in folders that are named for a label.
        right, right_by_original: how many of those get that label.
        model_bytes, model_bytes_of_original: sizes of the ONNX files.
    """

    folder: Path
    calibration_images: int
    images: int
    agreed: int
    labelled: int
    right: int
    right_by_original: int
    model_bytes: int
    model_bytes_of_original: int

    @property
    def agreement(self) -> float:
        """Share of the images with the same best class as by the original, 0 to 1."""
        return self.agreed / self.images

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images whose best class is right; None without any."""
        return self.right / self.labelled if self.labelled else None

    @property
    def accuracy_of_original(self) -> float | None:
        """The same of the original."""
        return self.right_by_original / self.labelled if self.labelled else None

    @property
    def loss(self) -> float:
        """The accuracy that was lost; where no truth is known, the share of other answers."""
        if not self.labelled:
            return 1 - self.agreement
        return (self.right_by_original - self.right) / self.labelled

    def facts(self) -> dict[str, Any]:
        """What scripts and `report.json` get."""
        return {
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "accuracy_of_original": self.accuracy_of_original,
            "loss": self.loss,
            "images": self.images,
            "labelled_images": self.labelled,
            "calibration_images": self.calibration_images,
            "model_bytes": self.model_bytes,
            "model_bytes_of_original": self.model_bytes_of_original,
        }


def quantize(
    files: ModelFiles, images: Path, config: QuantizeConfig, *, out: Path | None = None
) -> Quantized:
    """Write an INT8 version of a model: `model.onnx`, `model.toml`, labels and `report.json`.

    It appears complete and compared, or not at all, because a worker may be scanning its parent.
    A TensorFlow or Keras model is converted to ONNX first.

    Args:
        files: the original.
        images: a folder of images. Folders in it that are named for labels say what is right.
        config: how, and what is accepted.
        out: the new folder; by default the next version beside the original.

    Raises:
        AccuracyLost: more accuracy was lost than `config.max_loss`.
        ConfigurationError: `out` exists, or is needed; the model is not a classifier in ONNX or
            TensorFlow, or cannot be loaded or quantized; a library is missing; no images.
    """
    parent = _parent(files, out)
    _check_kind(files)
    import_quantizer()  # a missing library is said at once
    original = load_backend(files, _CPU)
    if original.input.encoded:
        raise ConfigurationError(
            f"model {files.name} decodes images itself, which cannot be quantized: "
            "name a tensor behind the decoder as input.name in model.toml"
        )
    found = labelled_images(images, _labels(files, original))
    calibration, compared = _divided(found, config)
    with staging_folder(parent, "quantizing") as scratch:
        made = scratch / "version"
        made.mkdir()
        source = _as_onnx(files, scratch / "exported", calibration)
        used = _write(source, made, calibration, config.method, scratch)
        quantized = load_backend(find_model(made, version=files.version, served=False), _CPU)
        result = replace(
            _compare(original, quantized, compared),
            folder=out or made,
            calibration_images=used,
            model_bytes=(made / MODEL).stat().st_size,
            model_bytes_of_original=source.path.stat().st_size,
        )
        if result.loss > config.max_loss + _ROUNDING:
            raise AccuracyLost(_lost(files, result, config))
        facts = {
            "accuracy_of": f"the images of {images}",
            **result.facts(),
            "quantized_from": f"{files.name}@{files.version}",
            "calibration": config.method.value,
            "max_loss": config.max_loss,
            "versions": library_versions(),
        }
        write_report(made / REPORT, None, facts)
        if out is None:
            return replace(result, folder=publish(made, parent))
        made.rename(out)
    return result


def _parent(files: ModelFiles, out: Path | None) -> Path:
    """The folder that the new version gets into."""
    if out is None:
        if not files.folder.name.isdecimal():
            raise ConfigurationError(
                f"{files.folder} is not a version's folder, such as models/{files.name}/1, "
                "beside which the new one would be: name the new folder with --to"
            )
        return files.folder.parent
    if out.exists():
        raise ConfigurationError(f"{out} exists already: name a folder that does not")
    return out.parent


def _check_kind(files: ModelFiles) -> None:
    manifest = files.manifest
    if manifest.framework not in (Framework.ONNX, Framework.TENSORFLOW):
        raise ConfigurationError(
            f"model {files.name} is of framework {manifest.framework.value!r}: only ONNX, "
            "TensorFlow and Keras are quantized here; convert it to ONNX"
        )
    if manifest.task is not Task.CLASSIFICATION:
        raise ConfigurationError(
            f"model {files.name}: task is {manifest.task.value!r}, but the best label, by which "
            "the accuracy is compared, is only what classifiers give"
        )


def _labels(files: ModelFiles, backend: Backend) -> tuple[str, ...]:
    """The names of all classes; numbers, where the model has no labels."""
    wanted = backend.input
    black = np.zeros((wanted.height, wanted.width, wanted.channels), np.uint8)
    return check_labels(files, backend.predict([black]).shape[1])


def _divided(
    images: list[LabelledImage], config: QuantizeConfig
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Images to measure ranges on, at most half of all, and others to compare the answers on."""
    calibration = thinned(images, min(config.calibration_images, max(1, len(images) // 2)))
    taken = {each.path for each in calibration}
    others = [each for each in images if each.path not in taken]
    return calibration, thinned(others or images, config.compared_images)


def _as_onnx(files: ModelFiles, folder: Path, images: Sequence[LabelledImage]) -> ModelFiles:
    """The model itself, or, of one of TensorFlow, its version in ONNX."""
    if files.manifest.framework is Framework.ONNX:
        return files
    some = [each.path.read_bytes() for each in images[:_BATCH]]
    found = export_onnx(files, folder, some, tolerance=_EXPORTED)
    if found.difference > _EXPORTED:
        raise ConfigurationError(
            f"model {files.name} answers differently as ONNX (a score by {found.difference:.2g}): "
            "export it with `fingerpost model export --tolerance`, and quantize that"
        )
    return find_model(folder, version=files.version, served=False)


def _write(
    files: ModelFiles,
    made: Path,
    images: Sequence[LabelledImage],
    method: Calibration,
    scratch: Path,
) -> int:
    """Write the version's files; how many images the ranges were measured on."""
    from fingerpost.worker.backends.onnx import open_session  # it imports ONNX Runtime

    wanted = load_backend(files, _CPU).input
    (source,) = open_session(files, _CPU, 1)[0].get_inputs()  # a backend has only one
    pixels = [item for item, _ in _decoded(images, wanted)]
    size = wanted.batch or 1
    batches = [
        stack(pixels[start : start + size], wanted, size=size)
        for start in range(0, len(pixels), size)
    ]
    try:
        write_int8(files.path, made / MODEL, source.name, batches, method, scratch)
    except Exception as error:  # of many kinds, from onnx and from ONNX Runtime
        raise ConfigurationError(
            f"model {files.name} cannot be quantized: {reason(error)}"
        ) from error
    write_labels(made, files.labels)
    manifest = msgspec.structs.replace(
        files.manifest,
        file=MODEL,
        labels=LABELS if files.labels else None,
        input=msgspec.structs.replace(
            files.manifest.input,
            height=wanted.height,
            width=wanted.width,
            channels=wanted.channels,
            layout=wanted.layout,
        ),
        preprocessing=wanted.preprocessing,
    )
    write_manifest(made / MANIFEST, manifest)
    return len(pixels)


def _compare(original: Backend, quantized: Backend, images: Sequence[LabelledImage]) -> Quantized:
    """Run both models on each image; what the answers say, with the other figures still zero."""
    count = agreed = labelled = right = right_by_original = 0
    items = _decoded(images, original.input)
    while part := list(itertools.islice(items, _BATCH)):
        pixels = [item for item, _ in part]
        before = original.predict(pixels).argmax(axis=1)
        after = quantized.predict(pixels).argmax(axis=1)
        truth = np.array([-1 if each.truth is None else each.truth for _, each in part])
        count += len(part)
        agreed += int((before == after).sum())
        labelled += int((truth >= 0).sum())
        right += int((after == truth).sum())
        right_by_original += int((before == truth).sum())
    return Quantized(
        folder=Path(),
        calibration_images=0,
        images=count,
        agreed=agreed,
        labelled=labelled,
        right=right,
        right_by_original=right_by_original,
        model_bytes=0,
        model_bytes_of_original=0,
    )


def _decoded(
    images: Iterable[LabelledImage], wanted: ImageInput
) -> Iterator[tuple[Item, LabelledImage]]:
    """Those of the images that can be decoded, as a worker gives them to the model.

    Raises:
        ConfigurationError: none can.
    """
    found = False
    for each in images:
        with contextlib.suppress(ImageError):
            yield prepare(each.path.read_bytes(), wanted, ImageConfig()), each
            found = True
    if not found:
        raise ConfigurationError("none of the images can be decoded: give others")


def _lost(files: ModelFiles, result: Quantized, config: QuantizeConfig) -> str:
    if result.accuracy is None or result.accuracy_of_original is None:
        what = (
            f"the best label of {result.agreement:.2%} of {result.images} images is the same, so "
            f"{result.loss:.2%} were lost"
        )
    else:
        what = (
            f"the accuracy on {result.labelled} images fell from {result.accuracy_of_original:.2%} "
            f"to {result.accuracy:.2%}, by {result.loss:.2%}"
        )
    other = [each.value for each in Calibration if each is not config.method]
    return (
        f"model {files.name} quantized by {config.method.value}: {what}, more than the limit of "
        f"{config.max_loss:.2%}: nothing was written; try --method {' or '.join(other)}, more "
        "images of the model's kind, or a higher --max-loss"
    )
