"""A red and a blue image as arrays, as clients of the Open Inference Protocol send them."""

from __future__ import annotations

from typing import Final

import numpy as np

from tests.support.rig import float_pixels

__all__ = ["RED_AND_BLUE"]

_FLOATS: Final = np.stack([float_pixels("red"), float_pixels("blue")])

# The array, and the protocol's name of its type.
RED_AND_BLUE: Final[dict[str, tuple[np.ndarray, str]]] = {
    "pixels": (
        np.stack([np.full((30, 40, 3), c, np.uint8) for c in ((250, 9, 9), (9, 9, 250))]),
        "UINT8",
    ),
    "FP32": (_FLOATS.astype(np.float32), "FP32"),
    "FP16": (_FLOATS.astype(np.float16), "FP16"),
    "FP64": (_FLOATS.astype(np.float64), "FP64"),
}
