"""Which errors end a run, and which results are held back until that is known."""

from __future__ import annotations

import pytest

from fingerpost.client import Result
from fingerpost.deploy.whole_run import WholeRun
from fingerpost.errors import (
    BrokenImage,
    FingerpostError,
    NoWorker,
    PeerError,
    RegistryUnreachable,
    UnknownModel,
    UnknownService,
    Unreachable,
)


def result(index: int, error: FingerpostError | None = None) -> Result:
    return Result(index=index, key=str(index), error=error)


@pytest.mark.parametrize(
    "error",
    [UnknownModel("?"), UnknownService("?"), NoWorker("?"), RegistryUnreachable("?")],
    ids=lambda error: type(error).__name__,
)
def test_what_concerns_all_images_ends_the_run_at_any_time(error: FingerpostError) -> None:
    whole = WholeRun()
    with pytest.raises(type(error)):
        whole.add(result(0, error))
    assert len(whole.add(result(1))) == 1
    with pytest.raises(type(error)):
        whole.add(result(2, error))


def test_twenty_failures_of_peers_at_the_start_end_the_run() -> None:
    whole = WholeRun()
    for index in range(19):
        assert whole.add(result(index, Unreachable("timed out"))) == []
    with pytest.raises(PeerError, match="the first 20 images failed.*: timed out"):
        whole.add(result(19, Unreachable("timed out")))


def test_an_answer_gives_back_what_was_held() -> None:
    whole = WholeRun()
    for index in range(19):
        assert whole.add(result(index, Unreachable("timed out"))) == []
    assert [each.index for each in whole.add(result(19))] == list(range(20))
    for index in range(100):
        assert len(whole.add(result(index, Unreachable("timed out")))) == 1


def test_bad_images_are_answers() -> None:
    whole = WholeRun()
    for index in range(100):
        assert len(whole.add(result(index, BrokenImage("?")))) == 1


def test_a_short_run_reports_what_was_held() -> None:
    whole = WholeRun()
    assert whole.add(result(0, Unreachable("timed out"))) == []
    assert [each.index for each in whole.rest()] == [0]
    assert whole.rest() == []
