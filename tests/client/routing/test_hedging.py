"""The delay after which an image is sent to a second worker."""

from math import inf

from fingerpost.client.routing import HedgeDelay


def test_it_is_the_95th_percentile_from_20_answers_on():
    delay = HedgeDelay()
    for second in range(19):
        delay.answered(float(second))
    assert delay.delay_s == inf
    delay.answered(19.0)
    assert delay.delay_s == 19.0
    for second in range(20, 100):
        delay.answered(float(second))
    assert delay.delay_s == 95.0


def test_it_follows_the_last_200_answers_in_steps_of_10():
    delay = HedgeDelay()
    for _ in range(200):
        delay.answered(1.0)
    assert delay.delay_s == 1.0
    for _ in range(9):
        delay.answered(2.0)
    assert delay.delay_s == 1.0
    for _ in range(191):
        delay.answered(2.0)
    assert delay.delay_s == 2.0
