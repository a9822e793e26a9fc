"""The moving average's formula, and the weight of a sample by time."""

import pytest

from fingerpost.basics.moving_average import ewma, time_weight


def test_an_average_moves_by_the_weight_of_each_sample():
    average = 10.0
    for expected in (11.0, 11.9, 12.71):
        average = ewma(average, 20.0, 0.1)
        assert average == pytest.approx(expected)
    assert ewma(average, 3.0, 1.0) == pytest.approx(3.0)
    assert ewma(3.0, 3.0, 0.2) == 3.0


@pytest.mark.parametrize(
    ("pause_s", "weight"), [(0.0, 0.1), (0.2, 0.1), (1.0, 0.25), (2.0, 0.5), (9.0, 0.6)]
)
def test_the_weight_of_a_sample_grows_with_the_pause_before_it(pause_s, weight):
    assert time_weight(pause_s, 0.1, 0.6, 4.0) == weight
