"""Batches in shared memory: what is written is read, and nothing beyond it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from fingerpost.worker.front_ends.batch_memory import BatchMemory


@pytest.fixture
def both() -> Iterator[tuple[BatchMemory, BatchMemory]]:
    """The two sides of one memory, each with a descriptor and a map of its own."""
    one = BatchMemory.made()
    other = BatchMemory(os.dup(one.descriptor))
    yield one, other
    one.close()
    other.close()


def test_images_of_all_kinds_arrive(both: tuple[BatchMemory, BatchMemory]) -> None:
    rng = np.random.default_rng(5)
    pixels = [rng.integers(0, 256, (5, 7, 3), np.uint8) for _ in range(3)]
    tensor = rng.random((3, 5, 7), np.float32)
    items = [pixels[0], pixels[1], b"jpeg", b"", tensor, pixels[2]]
    runs = both[0].write(items)
    assert [count for *_, count in runs] == [2, 1, 1, 1, 1], "equal ones are one run"
    found = both[1].read(runs)
    for sent, got in zip(items, found, strict=True):
        assert type(sent) is type(got)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(sent))


def test_it_grows_with_a_larger_batch_on_both_sides(
    both: tuple[BatchMemory, BatchMemory],
) -> None:
    small = np.zeros((1, 1, 1), np.uint8)
    assert len(both[1].read(both[0].write([small]))) == 1
    large = np.full((600, 600, 3), 9, np.uint8)
    (found,) = both[1].read(both[0].write([large]))
    np.testing.assert_array_equal(np.asarray(found), large)
    del found
    scores = np.random.default_rng(1).random((4, 500_000), np.float32)  # more than the images
    both[1].write_scores(scores)
    np.testing.assert_array_equal(both[0].read_scores([4, 500_000]), scores)


def test_nobody_can_shrink_it(both: tuple[BatchMemory, BatchMemory]) -> None:
    both[0].write([np.zeros((100, 100, 3), np.uint8)])
    with pytest.raises(PermissionError):
        os.ftruncate(both[1].descriptor, 0)


@pytest.mark.parametrize(
    "runs", [[("u", (1000, 1000, 3), 1)], [("b", (1 << 40,), 1)], [("f", (-1, 4), 1)]]
)
def test_a_batch_beyond_its_memory_is_an_error(
    both: tuple[BatchMemory, BatchMemory], runs: list[tuple[str, tuple[int, ...], int]]
) -> None:
    both[0].write([b"x"])
    with pytest.raises(ValueError, match="batch"):
        both[1].read(runs)  # type: ignore[arg-type]
