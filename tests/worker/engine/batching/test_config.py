"""The settings of batching, and what a model overrides."""

from __future__ import annotations

import math

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.models.manifest import BatchSpec


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_queue": 0},
        {"max_wait_s": -1},
        {"max_wait_s": math.nan},
        {"latency_s": 0},
        {"latency_s": math.inf},
        {"sizes": (1, 4)},
        {"sizes": (4, 2, 32)},
        {"sizes": (0, 32)},
    ],
)
def test_options_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BatchingConfig(**wrong)


def test_what_the_models_file_says_wins() -> None:
    options = BatchingConfig(max_batch=32, max_wait_s=0.01)
    assert options.override(BatchSpec()) == options
    assert options.override(BatchSpec(sizes=(1, 8), latency_ms=50)) == BatchingConfig(
        max_batch=8, sizes=(1, 8), max_wait_s=0.01, latency_s=0.05
    )
    assert options.override(BatchSpec(max=4, max_wait_ms=0)) == BatchingConfig(max_batch=4)
