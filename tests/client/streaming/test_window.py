"""How far a stream reads ahead, and in which order its results leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.optional import not_none

from fingerpost.client import Result
from fingerpost.client.streaming.options import OnError, StreamOptions
from fingerpost.client.streaming.window import StreamWindow
from fingerpost.errors import BrokenImage


def window(*, concurrency=12, ordered=False, on_error: OnError = "yield"):
    return StreamWindow(
        StreamOptions(concurrency=concurrency, on_error=on_error, ordered=ordered, max_bytes=1e6)
    )


@given(st.permutations(range(12)))
def test_results_in_any_order_leave_in_order(order):
    ordered = window(ordered=True)
    taken = []
    for index in order:
        ordered.add(Result(index=index, key=""))
        while (result := ordered.take()) is not None:
            taken.append(result.index)
    assert taken == list(range(12))


@given(st.permutations(range(12)))
def test_results_otherwise_leave_as_they_came(order):
    unordered = window()
    for index in order:
        unordered.add(Result(index=index, key=""))
    assert [not_none(unordered.take()).index for _ in order] == list(order)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_twice_as_many_as_are_in_flight_are_read_ahead(concurrency):
    stream = window(concurrency=concurrency)
    read = []
    while stream.has_room():
        stream.claim()
        read.append(stream.read())
    assert read == list(range(2 * concurrency))
    stream.add(Result(index=0, key=""))
    assert not stream.has_room(), "a result that waits counts too"
    assert stream.take() is not None
    assert stream.has_room()


def test_it_is_done_when_all_that_was_read_was_taken():
    stream = window(concurrency=2)
    stream.claim()
    stream.claim()
    assert stream.read() == 0
    stream.end()
    assert not stream.has_room()
    assert not stream.done
    stream.add(Result(index=0, key=""))
    assert not stream.done
    assert not_none(stream.take()).index == 0
    assert stream.take() is None
    assert stream.done


def test_an_error_is_returned_or_raised():
    failed = Result(index=0, key="", error=BrokenImage("broken"))
    quiet, loud = window(), window(on_error="raise")
    quiet.add(failed)
    assert quiet.take() is failed
    loud.add(failed)
    with pytest.raises(BrokenImage):
        loud.take()
