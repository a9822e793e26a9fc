"""Images that are arrays already: what is to be done with them before the model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.images import ImageConfig, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item

__all__ = ["preparation"]


def preparation(
    image: NDArray[Any], wanted: ImageInput, config: ImageConfig
) -> Callable[[], Item] | None:
    """What makes the model's input of an array; None where the array is that already.

    Args:
        image: see `Engine.infer`.
        wanted: what the model takes.
        config: the largest side of an image.

    Raises:
        InvalidRequest: an array of another shape or type, or of too many pixels a side.
    """
    if wanted.encoded:
        raise InvalidRequest("this model decodes images itself: send encoded images")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == wanted.channels:
        height, width = image.shape[:2]
        if (height, width) == (wanted.height, wanted.width):
            return None
        if not 1 <= min(height, width) <= max(height, width) <= config.max_side:
            raise InvalidRequest(
                f"the image is {width} x {height}: a side must be 1 to {config.max_side} pixels"
            )
        return partial(fit, image, wanted)
    if image.dtype != np.float32 or image.shape != wanted.tensor_shape:
        raise InvalidRequest(
            f"the image is {image.dtype} {list(image.shape)}: this model takes float32 "
            f"{list(wanted.tensor_shape)} as it is, or uint8 [rows, columns, {wanted.channels}]"
        )
    return None
