"""Makes one array of single images for a model, and scores of its output.

The arithmetic runs image by image in the memory of the batch, which stays in the cache, and along
whole rows: `(np.stack(images).astype(float32) - mean) / std` takes 9 times as long for 16
images of 224 x 224 (12.4 ms against 1.3 ms), because NumPy's inner loop is then 3 numbers long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.models.manifest import Activation, ChannelOrder, Layout
from fingerpost.worker.models.tasks import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item
    from fingerpost.worker.models.manifest import Manifest

__all__ = ["ToScores", "is_pixels", "predict_in_batches", "score_reader", "stack", "to_scores"]

# A vector of zeros stays one.
_SHORTEST: Final = np.float32(1e-12)

Empty = Callable[[tuple[int, ...], str], "NDArray[Any]"]
"""Memory for a batch of a shape and a type, as `numpy.empty` gives it."""
ToScores = Callable[[Any, int], "NDArray[np.float32]"]
"""Makes the scores of a model's output for so many images."""


def stack(
    images: Sequence[Item], wanted: ImageInput, *, size: int | None = None, empty: Empty = np.empty
) -> NDArray[Any]:
    """One contiguous batch, `[N, *wanted.tensor_shape]` of `wanted.dtype`.

    Pixels are put into the model's order of channels and its layout, and scaled by
    `(pixel - mean) / std` unless the model takes uint8. Float32 items are tensors already and are
    only copied; a model of uint8 accepts them if they are whole numbers from 0 to 255. Encoded
    images make an object array `[N]`.

    A single image that is the model's input already, and may be written, is not copied: a frame of
    1920 x 1080 takes as long to copy as everything else that a request costs.

    Args:
        images: 1 or more, as `Backend.predict` gets them.
        wanted: the model's input.
        size: N, where it is larger than the number of images: the last image is repeated.
        empty: where the batch is made.

    Raises:
        InvalidRequest: an item does not have the shape or the type that the model takes.
    """
    count = len(images)
    if wanted.encoded:
        batch: NDArray[Any] = np.empty(size or count, object)
        for place, image in enumerate(images):
            if isinstance(image, np.ndarray):
                raise InvalidRequest("the model decodes images itself: send encoded images")
            batch[place] = bytes(image)  # no copy of what is bytes already
    elif count == (size or count) == 1 and empty is np.empty and _is_ready(images[0], wanted):
        return np.asarray(images[0])[None]
    else:
        batch = empty((size or count, *wanted.tensor_shape), wanted.dtype)
        scale = _scaler(wanted)
        for slot, image in zip(batch, images, strict=False):
            _put(slot, image, wanted, scale)
    batch[count:] = batch[count - 1]
    return batch


def _is_ready(image: Item, wanted: ImageInput) -> bool:
    """Whether an image needs nothing to be done to it.

    Of one that must not be written the model gets a copy, which it may change.
    """
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and wanted.dtype == "uint8"
        and image.shape == wanted.tensor_shape
        and wanted.layout is not Layout.NCHW
        and wanted.preprocessing.order is not ChannelOrder.BGR
        and image.flags.c_contiguous
        and image.flags.writeable
    )


def predict_in_batches(
    images: Sequence[Item],
    wanted: ImageInput,
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
    *,
    empty: Empty = np.empty,
) -> NDArray[np.float32]:
    """Stack images and run them; a model with a fixed batch runs several times, padded.

    Args:
        images, wanted, empty: see `stack`.
        run: maps a batch to its scores `[N, classes]`.
    """
    size, count = wanted.batch, len(images)
    if size is None or size == count:
        return run(stack(images, wanted, empty=empty))
    parts = [
        run(stack(images[start : start + size], wanted, size=size, empty=empty))
        for start in range(0, count, size)
    ]
    return np.concatenate(parts)[:count]


def is_pixels(item: Item) -> bool:
    """Whether it is an image as it was decoded, and not a tensor or an encoded image."""
    return isinstance(item, np.ndarray) and item.dtype == np.uint8


def score_reader(manifest: Manifest) -> ToScores:
    """What makes scores of the output that a model gives for so many images; see `to_scores`."""
    activation, flat = manifest.output.activation, manifest.task is Task.REGRESSION
    return lambda output, count: to_scores(output, activation, count, flat=flat)


def to_scores(
    output: Any, activation: Activation, count: int, *, flat: bool = False
) -> NDArray[np.float32]:
    """Scores, float32 `[count, classes]`, of a model's output for `count` images or more.

    Further axes of length 1, which fully convolutional classifiers leave, are dropped. The
    manifest's activation is applied.

    Args:
        flat: whether `[count]` is one number for each image. Of a classifier it would be the
            numbers of classes, or a row without its batch.

    Raises:
        ValueError: the output has another shape.
    """
    scores = np.asarray(output, dtype=np.float32)
    if flat and scores.shape == (count,):
        scores = scores[:, None]
    classes = math.prod(scores.shape[1:])
    if scores.ndim < 2 or len(scores) < count or not classes or classes != max(scores.shape[1:]):
        raise ValueError(
            f"the output is {list(scores.shape)} for {count} images: "
            f"expected one row of scores per image, [{count}, classes]; what gives boxes, masks "
            "or other arrays says so with task in model.toml"
        )
    scores = scores.reshape(scores.shape[0], classes)[:count]
    if activation is Activation.SOFTMAX:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    elif activation is Activation.SIGMOID:
        scores = np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.float32)
    elif activation is Activation.L2:
        scores = scores / np.maximum(np.linalg.norm(scores, axis=1, keepdims=True), _SHORTEST)
    return scores


def _put(
    slot: NDArray[Any],
    image: Item,
    wanted: ImageInput,
    scale: Callable[[NDArray[Any]], None] | None,
) -> None:
    """Write one image into its slot of the batch."""
    if not isinstance(image, np.ndarray):
        raise InvalidRequest("the model takes pixels: send them decoded")
    pixels = image.dtype == np.uint8
    shape = (wanted.height, wanted.width, wanted.channels) if pixels else wanted.tensor_shape
    if image.shape != shape:
        raise InvalidRequest(
            f"the image's shape is {list(image.shape)}, but the model takes {list(shape)} "
            f"({'rows, columns, channels' if pixels else wanted.layout.value[1:]})"
        )
    if not pixels:
        with np.errstate(invalid="ignore"):  # NaN or 1e9 to uint8 is refused by the comparison
            slot[...] = image
        if wanted.dtype == "uint8" and not np.array_equal(slot, image):
            raise InvalidRequest("the model takes uint8: whole numbers from 0 to 255")
        return
    if wanted.preprocessing.order is ChannelOrder.BGR:
        image = image[..., ::-1]
    slot[...] = image.transpose(2, 0, 1) if wanted.layout is Layout.NCHW else image
    if scale is not None:
        scale(slot)


def _scaler(wanted: ImageInput) -> Callable[[NDArray[Any]], None] | None:
    """A function that scales one image in place; None where pixels are not scaled."""
    preprocessing = wanted.preprocessing
    if wanted.dtype == "uint8" or (preprocessing.mean, preprocessing.std) == (0.0, 1.0):
        return None
    channels_first = wanted.layout is Layout.NCHW

    def per_channel(values: float | tuple[float, ...]) -> NDArray[np.float32]:
        channels = np.broadcast_to(np.asarray(values, np.float32), wanted.channels)
        return channels[:, None, None] if channels_first else np.tile(channels, wanted.width)

    mean, factor = per_channel(preprocessing.mean), np.reciprocal(per_channel(preprocessing.std))

    def scale(slot: NDArray[Any]) -> None:
        rows = slot if channels_first else slot.reshape(wanted.height, -1)
        rows -= mean
        rows *= factor

    return scale
