"""One run of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from fingerpost.errors import ModelFailed
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.inference import run
from tests.support.engines import Plain, pixels


@pytest.mark.parametrize("large", [1e-30, 1e18, 3e38])
@pytest.mark.parametrize("other", [1.0, -1.0, math.inf, -math.inf, math.nan])
def test_only_an_image_whose_scores_are_not_finite_fails(large: float, other: float) -> None:
    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        found = np.full((len(images), 3), large, np.float32)
        found[1, 2] = large * other
        return found

    outcomes, clean = run(Plain(predict), [pixels()] * 3, BatchingConfig())
    assert clean
    failed = [isinstance(each, ModelFailed) for each in outcomes]
    assert failed == [False, not math.isfinite(other), False]
