"""What is learned of how long a batch takes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.worker.engine.batching.latency_model import LatencyModel
from tests.support.batchers import ten_and_two


def test_the_line_is_found() -> None:
    model = LatencyModel()
    for size in (1, 7, 16, 3, 9, 30) * 10:
        model.observe(size, ten_and_two(size))
    assert model.predict(24) == pytest.approx(ten_and_two(24), rel=0.02)
    assert model.bound(24) >= model.predict(24)


def test_one_size_only_gives_the_line_through_the_origin() -> None:
    model = LatencyModel()
    for _ in range(20):
        model.observe(8, 0.080)
    assert model.predict(16) == pytest.approx(0.160, rel=0.01)
    assert model.predict(1) == pytest.approx(0.010, rel=0.01)


def test_a_stall_moves_little_and_a_lasting_change_gets_through() -> None:
    model = LatencyModel()
    for _ in range(100):
        model.observe(4, 0.020)
    model.observe(4, 60.0)
    assert model.predict(4) < 0.020 * 1.25
    for _ in range(60):
        model.observe(4, 1.0)
    assert model.predict(4) == pytest.approx(1.0, rel=0.1)
    for _ in range(120):
        model.observe(4, 0.020)
    assert model.predict(4) == pytest.approx(0.020, rel=0.2)


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.one_of(st.just(0.0), st.floats(1e-9, 100))), min_size=3
    )
)
def test_predictions_grow_with_the_size_and_are_never_negative(runs: list) -> None:
    model = LatencyModel()
    for size, took_s in runs:
        model.observe(size, took_s)
    predictions = [model.predict(size) for size in range(1, 65)]
    assert 0 < predictions[0] < math.inf
    assert predictions == sorted(predictions)
