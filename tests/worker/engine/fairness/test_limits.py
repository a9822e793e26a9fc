"""The limits of a tenant in one worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import Overloaded
from fingerpost.security.grant import Grant
from fingerpost.worker.engine.fairness.limits import TenantLimits, TokenBucket


@given(
    st.floats(0.5, 1000),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 50)), max_size=60),
)
def test_a_bucket_lets_in_its_rate_and_one_burst_and_never_blocks_for_ever(
    rate: float, events: list[tuple[float, float]]
) -> None:
    now, taken, largest = 0.0, 0.0, 0.0
    bucket = TokenBucket(rate, now)
    for pause_s, units in events:
        now += pause_s
        wait_s = bucket.wait_s(now)
        if wait_s:
            now += wait_s * 1.000001
            assert bucket.wait_s(now) == 0
        bucket.take(units)
        taken, largest = taken + units, max(largest, units)
        assert taken <= rate * now * 1.001 + max(1.0, rate) + largest + 1e-6


def test_a_tenant_is_told_which_limit_it_has_reached_and_when_to_come_back() -> None:
    limits = TenantLimits(100)
    rated = Grant(tenant="rated", images_per_s=10)
    for _ in range(10):
        limits.enter(rated, 1000, 0.0)
    with pytest.raises(
        Overloaded, match=r"'rated' has 10 images/s here \(images_per_s\)"
    ) as caught:
        limits.enter(rated, 1000, 0.0)
    assert (caught.value.limit, caught.value.retry_after_s) == ("images_per_s", 0.05)
    limits.enter(rated, 1000, 0.2)
    large = Grant(tenant="large", bytes_per_s=1e6)
    limits.enter(large, 5_000_000, 0.0)  # larger than a second's bytes, and made up for after it
    with pytest.raises(Overloaded) as caught:
        limits.enter(large, 10, 1.0)
    assert (caught.value.limit, caught.value.retry_after_s) == ("bytes_per_s", pytest.approx(3))
    limits.enter(large, 10, 4.1)
    few = Grant(tenant="few", max_in_flight=2)
    for _ in range(2):
        limits.enter(few, 0, 0.0)
    with pytest.raises(Overloaded, match="2 requests at once") as caught:
        limits.enter(few, 0, 0.0)
    assert caught.value.limit == "max_in_flight"
    assert limits.wait_s(few, 0.0) > 0
    limits.leave(few)
    assert limits.wait_s(few, 0.0) == 0


def test_what_was_not_announced_is_charged_afterwards() -> None:
    limits = TenantLimits(100)
    grant = Grant(tenant="a", images_per_s=10, bytes_per_s=1000)
    limits.enter(grant, 0, 0.0)
    limits.leave(grant, images=19)
    with pytest.raises(Overloaded, match="images_per_s"):
        limits.enter(grant, 0, 0.5)
    limits.enter(grant, 0, 1.1)
    limits.leave(grant, body_bytes=5000)
    with pytest.raises(Overloaded, match="bytes_per_s"):
        limits.enter(grant, 0, 4.0)


def test_other_tenants_are_not_concerned_and_a_changed_lease_counts_at_once() -> None:
    limits = TenantLimits(100)
    slow = Grant(tenant="slow", images_per_s=1)
    limits.enter(slow, 0, 0.0)
    with pytest.raises(Overloaded):
        limits.enter(slow, 0, 0.0)
    limits.enter(Grant(tenant="other", images_per_s=1), 0, 0.0)
    limits.enter(Grant(tenant="slow", images_per_s=50), 0, 0.0)
    limits.enter(Grant(tenant="slow"), 0, 0.0)


def test_requests_in_flight_leave_room_for_one_more_tenant() -> None:
    limits = TenantLimits(100)
    alone = Grant(tenant="alone")
    for _ in range(100):
        limits.enter(alone, 0, 0.0)  # the worker itself refuses the next one
    for _ in range(100):
        limits.leave(alone)
    other = Grant(tenant="other")
    limits.enter(other, 0, 0.0)
    let_in = 0
    with pytest.raises(Overloaded, match="its share of 100 requests at once"):
        for _ in range(100):
            limits.enter(alone, 0, 0.0)
            let_in += 1
    assert let_in == 50
    limits.enter(other, 0, 0.0)


def test_tenants_that_left_are_forgotten() -> None:
    limits = TenantLimits(10)
    for number in range(10_000):
        grant = Grant(tenant=str(number))
        limits.enter(grant, 0, 0.0)
        limits.leave(grant)
    assert len(limits._tenants) <= 4096
