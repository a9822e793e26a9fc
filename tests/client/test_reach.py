"""How fast bytes come, by the times of their pieces."""

from __future__ import annotations

import pytest

from fingerpost.client.reach import MEASURED_BYTES, SpeedMeter, filler


@pytest.mark.parametrize(
    ("pieces", "mbit"),
    [
        ([], 0.0),
        ([(500_000, 1.0)], 0.0),
        # 1 MB in 2 s, as TCP begins; then 1 MB in 0.1 s.
        ([(100, 1.0), (1_000_000, 3.0), (500_000, 3.05), (500_000, 3.1)], 80.0),
        # So slow that the beginning is all there is.
        ([(100, 1.0), (100_000, 2.0), (150_000, 3.0)], 1.0),
    ],
    ids=["nothing", "one piece", "a slow beginning", "a slow link"],
)
def test_the_beginning_does_not_count(pieces: list[tuple[int, float]], mbit: float) -> None:
    meter = SpeedMeter()
    for count, now in pieces:
        meter.add(count, now)
    assert meter.mbit == pytest.approx(mbit)


def test_as_many_bytes_as_are_asked_for() -> None:
    assert sum(map(len, filler())) == MEASURED_BYTES
