"""One run of a model: padded, checked, and repeated in parts where it fails."""

from __future__ import annotations

import io
import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fingerpost.errors import ConfigurationError, FingerpostError, InvalidRequest, ModelFailed
from fingerpost.worker.backends.base import ItemRunner
from fingerpost.worker.backends.raised import is_the_models, type_and_text
from fingerpost.worker.engine.warm_up_times import measure

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import Backend, Item
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.engine.outcome import Scores
    from fingerpost.worker.engine.warm_up_times import Learn

__all__ = ["failure_of", "run", "warm_up"]

logger = logging.getLogger(__name__)


def run(
    backend: Backend, images: list[Item], config: BatchingConfig
) -> tuple[list[Scores | FingerpostError], bool]:
    """Run a batch; return an outcome for each image, and whether one run was enough.

    If a batch raises, its halves run alone, and so on: one bad image fails alone, after some
    `2 log2(n)` runs, and a batch too large for the memory is still answered. Padding repeats the
    last image.

    Returns:
        float32 scores `[classes]` or an error, in the order of the images.
    """
    count = len(images)
    size = config.padded_size(count)
    try:
        scores = backend.predict([*images, *images[-1:] * (size - count)])
        if scores.ndim != 2 or len(scores) != size:
            raise ValueError(f"its scores have shape {list(scores.shape)} for {size} images")
    except BaseException as error:
        if not is_the_models(error):
            raise
        if count == 1:
            return [failure_of(error)], False
    else:
        scores = scores[:count]
        if _all_finite(scores):
            return list(scores), True
        return [
            row if np.isfinite(row).all() else _not_finite(image)
            for image, row in zip(images, scores, strict=False)
        ], True
    half = count // 2
    outcomes = [run(backend, part, config)[0] for part in (images[:half], images[half:])]
    return [*outcomes[0], *outcomes[1]], False


def _all_finite(scores: Scores) -> bool:
    """Whether all numbers are finite.

    Then the sum of their squares is, too, which takes half of the time, unless they are very large.
    """
    return math.isfinite(np.vdot(scores, scores)) or bool(np.isfinite(scores).all())


def warm_up(
    backend: Backend, max_batch: int, sizes: tuple[int, ...] = (), learn: Learn | None = None
) -> int:
    """Run real inferences on gray images, blocking; return the number of classes.

    That is 0 of a backend that runs its items by itself.

    Both the smallest and the largest batch run, or every one of `sizes`, because frameworks plan
    memory and choose kernels when they first see a shape (a graph that decodes images itself runs
    them one by one, so two are enough). With `learn` they run again and are measured; see
    `warm_up_times`.

    Raises:
        ConfigurationError: the model raises, or gives something other than one row of finite
            scores an image.
    """
    if isinstance(backend, ItemRunner):
        backend.warm_up_items(max_batch, sizes, learn)
        return 0
    wanted = backend.input
    blank: Item
    if wanted.encoded:
        blank, max_batch = _gray_jpeg(), min(2, max_batch)
    else:
        blank = np.full((wanted.height, wanted.width, wanted.channels), 128, np.uint8)
    classes, first_s = 0, []
    sizes = sizes or tuple(sorted({1, max_batch}))
    for size in sizes:
        began = time.monotonic()
        try:
            scores = backend.predict([blank] * size)
        except BaseException as error:
            if not is_the_models(error):
                raise
            raise ConfigurationError(
                f"the model fails on a gray image (batch of {size}): {_text(error)}"
            ) from error
        first_s.append(time.monotonic() - began)
        if scores.ndim != 2 or scores.shape[0] != size or not np.isfinite(scores).all():
            raise ConfigurationError(
                f"the model gives {scores.dtype} {list(scores.shape)} for {size} images: "
                f"expected finite scores [{size}, classes]"
            )
        classes = int(scores.shape[1])
    if learn is not None:
        measure(lambda size: backend.predict([blank] * size), sizes, first_s, learn)
    return classes


def failure_of(error: BaseException) -> FingerpostError:
    """What a model raised on one image, as the outcome of that image; it is logged."""
    if isinstance(error, FingerpostError):
        return error
    text = _text(error)
    logger.warning("the model failed on an image: %s", text)
    return ModelFailed(f"the model failed on this image: {text}")


def _text(error: BaseException) -> str:
    """The error's own words, with its type where they do not say what happened."""
    return str(error)[:300] if isinstance(error, Exception) and str(error) else type_and_text(error)


def _not_finite(image: Item) -> FingerpostError:
    if isinstance(image, np.ndarray) and image.dtype == np.float32:  # as the caller sent it
        return InvalidRequest(
            f"the model's scores for these values, up to {np.abs(image).max():g}, are not finite: "
            "send values in the range that the model was made for"
        )
    return ModelFailed("the model gave scores that are not finite")


def _gray_jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (224, 224), (128, 128, 128)).save(out, "JPEG")
    return out.getvalue()
