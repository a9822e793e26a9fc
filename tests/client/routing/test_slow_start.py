"""The share of a new worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from fingerpost.client.routing import SlowStartConfig
from fingerpost.client.routing.slow_start import SlowStart

if TYPE_CHECKING:
    from fingerpost.client.routing import Endpoint


@pytest.mark.parametrize(("age_s", "share"), [(0.0, 0.1), (15.0, 0.55), (30.0, 1.0), (99.0, 1.0)])
def test_a_new_worker_gets_a_growing_share_of_its_part(age_s, share):
    starting = SlowStart(SlowStartConfig())
    endpoint = cast("Endpoint", SimpleNamespace(new_at=0.0, credit=0.0, credit_at=0))
    admitted = 0
    for _ in range(10_000):
        starting.picks += 1
        admitted += starting.admits(endpoint, 10, age_s)
    assert admitted == pytest.approx(1000 * share, rel=0.01)
