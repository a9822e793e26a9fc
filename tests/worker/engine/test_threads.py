"""What is learned from the runs of a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fingerpost.worker.engine.batching.latency_model import LatencyModel
from tests.support.engines import GatedBackend, Plain, engine_of


async def test_runs_of_microseconds_are_learned_from_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To learn from a run of 5 us takes 10 us."""
    learned: list[float] = []
    observe = LatencyModel.observe

    def counted(model: LatencyModel, size: int, took_s: float, cost: float = 0.0) -> None:
        learned.append(took_s)
        observe(model, size, took_s, cost)

    monkeypatch.setattr(LatencyModel, "observe", counted)
    inline = replace(GatedBackend.input, encoded=True, check_encoded=False, inline=True)
    took_s = [0.0] * 100 + [0.002] * 3

    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        time.sleep(took_s.pop(0))  # a model that takes as long
        return np.zeros((len(images), 3), np.float32)

    async with engine_of(Plain(predict, inline)) as engine:
        began = time.monotonic()
        while took_s:
            await engine.classify(b"x")
        passed_s = time.monotonic() - began
    assert sum(each >= 0.002 for each in learned) >= 3
    assert len(learned) <= 4 + passed_s / 5e-4
