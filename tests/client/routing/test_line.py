"""Who waits for a place is called in order, and one at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fingerpost.client.routing.line import WaitingLine


def test_the_oldest_is_called_first_and_the_next_after_it():
    line: WaitingLine[str] = WaitingLine()
    assert not line
    assert line.call() is None
    for began, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        line.join(began, name)
    assert line.call() == "a"
    assert line.call() is None  # until "a" has said how it went
    line.join(1.0, "a", again=True)
    assert line.call() == "a"
    line.done()
    assert line.call() == "b"
    line.done()
    assert line.call() == "c"
    assert line  # nobody overtakes who was called
    line.done()
    assert not line


@given(st.lists(st.floats(0, 100), max_size=30))
def test_all_are_called_in_the_order_of_their_age(ages):
    line: WaitingLine[int] = WaitingLine()
    for index, began in enumerate(ages):
        line.join(began, index)
    called = []
    while (index := line.call()) is not None:
        called.append(index)
        line.done()
    assert called == sorted(range(len(ages)), key=lambda index: (ages[index], index))
