"""How many refusals are written."""

from __future__ import annotations

from fingerpost.security.audit.refusal_limit import RefusalLimit


def test_a_flood_from_one_address_hides_nobody_else() -> None:
    limit = RefusalLimit()
    assert sum(limit.admit("10.0.0.7", 100.0) for _ in range(1000)) == 5
    assert limit.admit("10.0.0.8", 100.0)
    assert limit.take_left_out(105.0) == 0
    assert limit.take_left_out(110.0) == 995
    assert limit.take_left_out(110.0) == 0
    assert limit.admit("10.0.0.7", 110.0)


def test_a_flood_from_everywhere_is_bounded() -> None:
    limit = RefusalLimit()
    assert sum(limit.admit(str(number), 100.0) for number in range(20_000)) == 100
    assert len(limit._sources) <= 1000
    assert limit.take_rest() == 19_900
