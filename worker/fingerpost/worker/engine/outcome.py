"""The outcome of one image, and its best labels."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fingerpost.client.wire import TimingsMs

__all__ = ["Outcome", "Scores", "top_labels"]

Scores = NDArray[np.float32]

# Up to this many classes Python sorts faster than NumPy: 1.3 us against 4.5 us for 10 classes.
_FEW: Final = 32


class Outcome(msgspec.Struct, frozen=True):
    """One image's scores, float32 `[classes]`, and how long each step took."""

    scores: Scores
    timings: TimingsMs


def top_labels(scores: Scores, labels: tuple[str, ...], top: int) -> tuple[tuple[str, float], ...]:
    """The `top` labels with the highest scores, highest first; all labels if `top` is 0."""
    if len(labels) <= _FEW:
        few = scores.tolist()
        ranks = sorted(range(len(few)), key=few.__getitem__, reverse=True)[: top or None]
        return tuple([(labels[i], round(few[i], 6)) for i in ranks])
    order = np.argsort(scores)[::-1][: top or None]
    return tuple((labels[i], round(float(scores[i]), 6)) for i in order)
