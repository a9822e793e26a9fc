"""What is probably wrong with a model that runs, seen in its answers to generated images.

A model without its softmax, or fed with pixels in the wrong range, answers every request, and
wrongly. Its file rarely says what it was trained on, so this is judged by what it does, which is
the same for every framework:

- scores that do not sum to 1, or lie outside of 0..1, are not probabilities;
- a model that is made for 0..255 (it scales pixels itself, or was trained so) takes all images for
  black ones if it gets them as 0..1 or -2..2. One that still tells them apart was made for these.

Rejected: a look at the first layers, which needs a walk through the graph for each framework, and
takes a batch normalization, a padding or a 1 x 1 convolution for what it is not.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.basics.config_file import read_text
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.manifest import (
    MANIFEST,
    Activation,
    ChannelOrder,
    Layout,
    Preprocessing,
)
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.tools.sample_images import sample_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.models.files import ModelFiles

    Scores = NDArray[np.float32]

__all__ = ["Finding", "find_problems", "manifest_lines"]

_IMAGES: Final = 12
# float16 and tables of activations are that exact.
_ROUNDING: Final = 0.02
# Quantized to 8 bits, probabilities are multiples of 1/256, each rounded by up to half of that.
_STEPS: Final = 256
# How far a score, after a softmax, moves from its value for black if the model sees the image.
_SEES: Final = 0.1
# And if it does not: 0..1 are then the darkest of 256 steps.
_BLIND: Final = 0.02
_CERTAIN: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is probably wrong.

    Attributes:
        message: what, and why it is thought so.
        toml: the lines to write in `model.toml`; none where something else helps.
    """

    message: str
    toml: tuple[str, ...] = ()


def manifest_lines(files: ModelFiles, findings: Sequence[Finding]) -> list[str]:
    """What to write in `model.toml` for these findings; the whole file where there is none yet."""
    tables: dict[str, tuple[str, ...]] = {}  # "" for the keys above all tables
    if files.inferred and files.manifest.preprocessing != Preprocessing():
        # It was implied by the file's kind, which it is not any more beside a `model.toml`.
        implied = files.manifest.preprocessing
        order = (f'order = "{implied.order.value}"',) if implied.order != ChannelOrder.RGB else ()
        tables["[preprocessing]"] = (*order, f"mean = {implied.mean}", f"std = {implied.std}")
    found = {table: tuple(keys) for table, *keys in (each.toml for each in findings if each.toml)}
    if not found:
        return []
    lines = [f'framework = "{files.manifest.framework.value}"'] if files.inferred else []
    lines += found.pop("", ())
    for table, keys in (tables | found).items():
        lines += [table, *keys]
    return lines


def find_problems(
    files: ModelFiles, backend: Backend, *, scaling_given: bool = False
) -> list[Finding]:
    """Run a model on generated images, and judge its scores, its scaling and its labels.

    Args:
        files: the model on disk.
        backend: the model, loaded and warmed up.
        scaling_given: whether someone has said how pixels are scaled, so that 0 to 255 is meant.
    """
    try:
        found = _of_answers(files, backend, scaling_given=scaling_given)
    except Exception as error:  # of a model's own code, of any kind
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:300]
        found = [Finding(message=f"the model fails on a generated image: {reason}")]
    if not files.labels and files.manifest.task in (Task.CLASSIFICATION, Task.MULTILABEL):
        found.append(
            Finding(
                message="there are no labels, so answers name the classes by their numbers: write "
                f"one label a line, in the order of the scores, into {files.folder / 'labels.txt'}"
            )
        )
    return found


def _of_answers(files: ModelFiles, backend: Backend, *, scaling_given: bool) -> list[Finding]:
    wanted = backend.input
    images = [prepare(data, wanted, ImageConfig()) for data in sample_images(_IMAGES)]
    scores = np.concatenate([backend.predict([image]) for image in images])
    if not np.isfinite(scores).all():
        return [Finding(message="some scores are not finite, of which images get an error")]
    found = []
    if files.manifest.task is Task.CLASSIFICATION:
        found.append(_of_scores(scores, files.manifest.output.activation))
    if not wanted.encoded and wanted.dtype != "uint8":
        pixels = [np.asarray(each) for each in images]
        given = scaling_given or _is_scaling_written(files)
        found.append(_of_scaling(backend, pixels, given=given))
    return [each for each in found if each is not None]


def _of_scores(scores: Scores, activation: Activation) -> Finding | None:
    low, high, sums = float(scores.min()), float(scores.max()), scores.sum(axis=1)
    span = f"from {low:.3g} to {high:.3g}"
    softmax = ("[output]", 'activation = "softmax"')
    if scores.shape[1] == 1:
        return Finding(
            message=f"there is one score for an image ({span}), not one for each class: if it is "
            "that of the second of two classes, let the model return both (1 - score, score); if "
            'it is a quantity, such as an age, write task = "regression"'
        )
    if _are_probabilities(scores):
        if activation is Activation.SOFTMAX and _is_twice(scores):
            return Finding(
                message="the softmax is applied twice: the model's own output is probabilities "
                f'already, and with activation = "softmax" the best is at most {high:.3g}',
                toml=("[output]", 'activation = "none"'),
            )
        return None
    if high <= _ROUNDING and _are_probabilities(np.exp(scores)):
        return Finding(message=f"the scores are logarithms of probabilities ({span})", toml=softmax)
    if _have_length_1(scores):
        return Finding(
            message=f"the scores ({span}) are a vector of length 1, which is an embedding, not a "
            "classification: labels say nothing about it, and /v1/infer/NAME returns all of it",
            toml=("", 'task = "embedding"'),
        )
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return Finding(
            message="the scores are between 0 and 1, but those of an image sum to "
            f"{sums.min():.3g} to {sums.max():.3g}, not to 1: right for a model whose images have "
            "several labels (sigmoid), for which this is written; else the model is not a "
            "classifier, or not trained",
            toml=("", 'task = "multilabel"'),
        )
    return Finding(
        message=f"the scores are not probabilities: they go {span}, and those of an image sum to "
        f"{sums.min():.3g} to {sums.max():.3g}. If they are logits (a classifier without a softmax "
        "at its end), this makes probabilities of them; if they are features or an embedding, "
        'write task = "embedding" instead, and use /v1/infer/NAME, which returns all of them; of a '
        'model whose images have several labels, task = "multilabel" and activation = "sigmoid"',
        toml=softmax,
    )


def _is_scaling_written(files: ModelFiles) -> bool:
    if files.inferred:
        return False
    written = tomllib.loads(read_text(files.folder / MANIFEST)).get("preprocessing", {})
    return not written.keys().isdisjoint({"mean", "std"})


def _of_scaling(backend: Backend, images: list[NDArray[Any]], *, given: bool) -> Finding | None:
    """Whether the model sees images as small numbers although it gets 0..255, or the reverse."""
    preprocessing = backend.input.preprocessing
    unscaled = (preprocessing.mean, preprocessing.std) == (0.0, 1.0)
    tensors = [_tensor(backend, image) for image in images]
    zeros = np.zeros_like(tensors[0])
    plain = _as_probabilities(np.concatenate([backend.predict([image]) for image in images]))

    def rows(mean: float, std: float) -> Scores:
        """The answers to zeros, and then to the images, with the pixels scaled like this."""
        scaled = [(each - np.float32(mean)) / np.float32(std) for each in tensors]
        found = [backend.predict([each]) for each in (zeros, *scaled)]
        return _as_probabilities(np.concatenate(found))

    if unscaled:
        if given:
            return None
        small = rows(0.0, 255.0)
        sees = max(_moves(small), _moves(rows(127.5, 58.0))) >= _SEES
        # The scale of the pixels may change nothing in an embedding that is normalized.
        if not sees or (_have_length_1(plain) and np.abs(small[1:] - plain).max() < _BLIND):
            return None
        return Finding(
            message="pixels probably go in unscaled: the model gets 0 to 255 (mean 0, std 1), but "
            "tells images apart that are 0 to 1 or -2 to 2, which a model made for 0 to 255 does "
            "not. If it was trained on 0 to 1, write this; on -1 to 1, mean = 127.5 and "
            "std = 127.5; as torchvision's models, mean = [123.675, 116.28, 103.53] and "
            "std = [58.395, 57.12, 57.375]; on 0 to 255, std = 1.0",
            toml=("[preprocessing]", "mean = 0.0", "std = 255.0"),
        )
    spread = float((plain.max(axis=0) - plain.min(axis=0)).max())
    if spread >= _BLIND or _moves(rows(0.0, 1.0)) < _SEES:
        return None
    return Finding(
        message="pixels are probably scaled twice: the answers to all images are nearly the same "
        f"(the scores differ by {spread:.2g} at most), but not if the pixels go in as 0 to 255, so "
        "the model scales them itself",
        toml=("[preprocessing]", "mean = 0.0", "std = 1.0"),
    )


def _moves(rows: Scores) -> float:
    """How far images' scores are from those of zeros, at most; 0 where some are not finite."""
    return float(np.abs(rows[1:] - rows[0]).max()) if np.isfinite(rows).all() else 0.0


def _tensor(backend: Backend, image: NDArray[Any]) -> NDArray[np.float32]:
    """An image as the model's own tensor of 0..255, which a backend does not scale."""
    wanted = backend.input
    if wanted.preprocessing.order is ChannelOrder.BGR:
        image = image[..., ::-1]
    if wanted.layout is Layout.NCHW:
        image = image.transpose(2, 0, 1)
    return np.ascontiguousarray(image, np.float32)


def _are_probabilities(scores: Scores) -> bool:
    steps = scores * _STEPS
    quantized = np.array_equal(steps, np.rint(steps))
    rounding = scores.shape[1] / _STEPS / 2 if quantized else _ROUNDING
    return bool(scores.min() >= -_ROUNDING and np.abs(scores.sum(axis=1) - 1).max() <= rounding)


def _have_length_1(scores: Scores) -> bool:
    return bool(np.abs(np.linalg.norm(scores, axis=1) - 1).max() <= _ROUNDING)


def _as_probabilities(scores: Scores) -> Scores:
    """The scores, or where they may be logits their softmax; of one class their sigmoid."""
    if scores.min() >= -_ROUNDING and scores.max() <= 1 + _ROUNDING:
        return scores
    if scores.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.float32)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _is_twice(scores: Scores) -> bool:
    """Whether probabilities are the softmax of probabilities: their logarithms say which these are.

    Only where an image is recognized with some certainty: scores that are all alike fit anything.
    """
    logs = np.log(np.maximum(scores, np.float32(1e-30)))
    inner = logs + (1 - logs.sum(axis=1, keepdims=True)) / scores.shape[1]
    return bool(inner.min() >= -_ROUNDING and inner.max() > _CERTAIN)
