"""The phases of an attempt, and when it times out."""

from __future__ import annotations

from fingerpost.client.routing import Phase, PhaseClock


def test_a_slow_but_moving_upload_is_not_ended():
    clock = PhaseClock(
        0.0,
        deadline=100.0,
        connect_timeout_s=2.0,
        upload_stall_timeout_s=5.0,
        response_timeout_s=10.0,
    )
    assert (clock.phase, clock.expires_at()) == (Phase.CONNECT, 2.0)
    clock.connected(1.0)
    assert (clock.phase, clock.expires_at()) == (Phase.UPLOAD, 6.0)
    for second in range(2, 60):
        clock.progressed(float(second))
        assert clock.expires_at() == second + 5.0
    clock.sent(60.0)
    assert (clock.phase, clock.expires_at()) == (Phase.COMPUTE, 70.0)
    clock.sent(95.0)
    assert clock.expires_at() == 100.0
    assert (clock.left_ms(95.0), clock.left_ms(101.0)) == (5000, 1)
