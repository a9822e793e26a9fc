"""The load of several front ends, as any of them reports it."""

from __future__ import annotations

from fingerpost.registry import LoadReport, WorkerState
from fingerpost.registry.load import ClassLoad
from fingerpost.worker.front_ends.load_board import LoadBoard

NAMES = ("interactive", "batch")


def report(rif: int = 0, expected_s: float = 0.0, **more: object) -> LoadReport:
    values = {"slots": 4, "state": WorkerState.READY, "boot_id": 7, "seq": 1, "alone_s": 0.1}
    return LoadReport(rif=rif, expected_s=expected_s, **(values | more))  # type: ignore[arg-type]


def test_requests_are_added_up_and_the_busiest_says_when() -> None:
    board = LoadBoard.made(3, NAMES)
    board.write(1, report(5, 0.9, queued_cost=1.5, latency_per_cost_s=2.0), images=10)
    board.write(2, report(2, 0.2, queued_cost=0.5), images=3)
    merged = board.merged(report(1, 0.3, seq=9), board.others(0))
    assert (merged.rif, merged.slots, merged.seq, merged.boot_id) == (8, 4, 9, 7)
    assert (merged.expected_s, merged.queued_cost, merged.latency_per_cost_s) == (0.9, 2.0, 2.0)
    assert merged.state is WorkerState.READY
    assert board.images() == 13


def test_an_idle_one_adds_nothing_of_its_last_request() -> None:
    board = LoadBoard.made(2, NAMES)
    board.write(1, report(3, 5.0, queued_cost=4.0), images=0)
    board.set_rif(1, 0)
    merged = board.merged(report(1, 0.3), board.others(0))
    assert (merged.rif, merged.expected_s, merged.queued_cost) == (1, 0.3, 0.0)


def test_one_that_stalls_makes_the_whole_fail() -> None:
    board = LoadBoard.made(2, NAMES)
    board.write(1, report(state=WorkerState.FAILED), images=0)
    assert board.merged(report(), board.others(0)).state is WorkerState.FAILED
    board.clear(1)
    assert board.merged(report(), board.others(0)).state is WorkerState.READY


def test_the_images_of_the_dead_still_count() -> None:
    board = LoadBoard.made(2, NAMES)
    board.write(0, report(), images=5)
    board.write(1, report(2), images=6)
    board.clear(1)
    assert board.images() == 11
    assert board.others(0) == []
    assert board.seen_s(1) == 0


def test_classes_are_added_up_where_one_has_them() -> None:
    board = LoadBoard.made(2, NAMES)
    classes = {"interactive": ClassLoad(rif=1, expected_s=0.1), "batch": ClassLoad(rif=4)}
    board.write(1, report(4, classes=classes), images=0)
    merged = board.merged(report(2, 0.5), board.others(0))
    assert merged.classes == {
        "interactive": ClassLoad(rif=3, expected_s=0.5),
        "batch": ClassLoad(rif=6, expected_s=0.5),
    }
