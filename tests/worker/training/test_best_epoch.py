"""Which epoch is kept, and when a training stops."""

from __future__ import annotations

import pytest

from fingerpost.worker.training.best_epoch import BestEpoch


@pytest.mark.parametrize(
    ("epochs", "best", "stops_after"),
    [
        # By accuracy, and of equal ones by loss.
        ([(0.5, 2.0), (0.6, 3.0), (0.6, 2.5), (0.6, 2.6)], 2, None),
        # A loss that rises while more images are right is no reason to stop.
        ([(0.5, 1.0), (0.6, 1.1), (0.7, 1.2), (0.8, 1.3), (0.9, 1.4)], 4, None),
        # Nor is an accuracy that stands still while the loss falls.
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.8), (0.5, 0.7), (0.5, 0.6)], 4, None),
        ([(0.5, 1.0), (0.5, 1.0), (0.4, 1.1), (0.5, 1.2)], 0, 4),
        ([(0.1, float("nan"))] * 4, 0, 4),
    ],
)
def test_the_rule(epochs: list[tuple[float, float]], best: int, stops_after: int | None) -> None:
    rule = BestEpoch(patience=3)
    kept = stopped = None
    for number, (accuracy, loss) in enumerate(epochs):
        if rule.ended(accuracy, loss):
            kept = number
        if rule.stop and stopped is None:
            stopped = number + 1
    assert (kept, stopped) == (best, stops_after)
