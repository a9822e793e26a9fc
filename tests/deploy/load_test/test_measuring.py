"""The pure parts of a load test: when images are due, what is counted, what is made of it."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.client import Result
from fingerpost.deploy.load_test.measuring.arrivals import constant, poisson
from fingerpost.deploy.load_test.measuring.histogram import Histogram
from fingerpost.deploy.load_test.measuring.plan import Plan
from fingerpost.deploy.load_test.measuring.report import make_report
from fingerpost.deploy.load_test.measuring.tally import Tally
from fingerpost.errors import ConfigurationError, FingerpostError, Overloaded


def test_constant_arrivals() -> None:
    assert list(constant(4, 1)) == [0, 0.25, 0.5, 0.75]
    assert list(constant(0.4, 6)) == [0, 2.5, 5]
    assert len(list(constant(333, 10))) == 3330


def test_poisson_arrivals() -> None:
    due = list(poisson(100, 1000, Random(1)))
    assert due == sorted(due)
    assert due[0] > 0
    assert due[-1] < 1000
    # The count's standard deviation is sqrt(100,000); the gaps' is their mean.
    assert abs(len(due) - 100_000) < 4 * math.sqrt(100_000)
    gaps = [after - before for before, after in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(0.01, rel=0.03)


def histogram(*values: float) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(
    st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=300),
    st.lists(st.floats(0, 100), min_size=1, max_size=5),
)
def test_percentiles_are_those_of_the_sorted_values(
    values: list[float], percents: list[float]
) -> None:
    found = histogram(*values).percentiles(*percents)
    ordered = sorted(values)
    for percent, value in zip(percents, found, strict=True):
        rank = max(1, math.ceil(percent / 100 * len(values) - 1e-6))
        assert value == pytest.approx(ordered[rank - 1], rel=0.0005)


def test_the_largest_value_and_the_mean_are_exact() -> None:
    found = histogram(0.1, 0.2, 0.3001)
    assert found.max_s == 0.3001
    assert found.mean_s == pytest.approx(0.2000333)
    assert found.percentiles(100) == [pytest.approx(0.3001, rel=0.0005)]
    assert Histogram().percentiles(50) == [0.0]
    assert Histogram().mean_s == 0.0


def test_a_million_values_take_the_room_of_their_range() -> None:
    found = Histogram()
    rng = Random(1)
    for _ in range(100_000):
        found.record(rng.uniform(0.001, 0.1))
    found.record(0.05, count=900_000)
    assert found.count == 1_000_000
    assert len(found._buckets) < 7_000


def test_the_spectrum_gets_finer_as_far_as_there_are_values() -> None:
    spectrum = histogram(*(number / 1000 for number in range(1, 1001))).spectrum()
    percents = [percent for percent, _ in spectrum]
    assert percents[0] == 0
    assert percents[5] == 50
    assert 99.8 < percents[-2] < 99.91
    assert percents[-1] == 100
    assert [seconds for _, seconds in spectrum] == sorted(seconds for _, seconds in spectrum)
    assert dict(spectrum)[50] == pytest.approx(0.5, rel=0.001)
    assert Histogram().spectrum() == [(0, 0), (100, 0)]


def test_the_expected_interval_adds_what_a_late_answer_held_up() -> None:
    found = histogram(*[0.001] * 99, 1.0).corrected(0.1)
    # As HdrHistogram: 1.0, then 0.9 down to 0.1.
    assert found.count == 109
    assert found.percentiles(100 * 100 / 109, 100 * 101 / 109) == [
        pytest.approx(0.1, rel=0.001),
        pytest.approx(0.2, rel=0.001),
    ]
    assert histogram(0.001, 0.0999).corrected(0.1).count == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seconds": 0.0}, "--seconds 0: use 0.1 to 86,400"),
        ({"seconds": math.nan}, "--seconds nan"),
        ({"warm_up_s": -1.0}, "--warm-up -1"),
        ({"deadline_s": math.inf}, "--deadline inf"),
        ({"rate": -5.0}, "--rate -5"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"max_outstanding": 0}, "--max-outstanding 0"),
        ({"expected_interval_s": 0.0}, "--expected-interval 0"),
    ],
)
def test_a_plan_with_a_value_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Plan(model="digits", **wrong)  # type: ignore[arg-type]


def result(
    index: int,
    seconds: float,
    *,
    error: FingerpostError | None = None,
    address: str = "a:1",
    retried: tuple[str, ...] = (),
) -> Result:
    return Result(
        index=index,
        key="",
        error=error,
        address=address,
        elapsed_s=seconds,
        retried=retried,
        image_bytes=1000,
    )


def test_latency_counts_from_when_an_image_was_due() -> None:
    tally = Tally(begin=100.0, seconds=2.0)
    tally.send(0, due=100.5, now=101.0, held=True)
    tally.receive(result(0, 0.25))
    assert tally.service.max_s == 0.25
    assert tally.response.max_s == 0.75
    assert (tally.held, tally.lag.count) == (1, 0)
    tally.send(1, due=101.0, now=101.001)
    assert tally.lag.max_s == pytest.approx(0.001)


def test_the_warm_up_counts_for_throughput_alone() -> None:
    tally = Tally(begin=100.0, seconds=2.0)
    tally.send(0, due=99.0, now=99.0)
    tally.send(1, due=99.9, now=99.9)
    tally.send(2, due=101.9, now=101.9)
    tally.receive(result(0, 0.5))  # came before it
    tally.receive(result(1, 0.5))  # came within it
    tally.receive(result(2, 0.5))  # came after it
    tally.skip(due=99.9)
    assert (tally.sent, tally.answered, tally.not_sent) == (1, 1, 0)
    assert [each.response.count for each in tally.slices] == [1, 0]


def test_the_figures() -> None:
    plan = Plan(model="digits", seconds=2.0, rate=3.0)
    tally = Tally(begin=0.0, seconds=2.0)
    for index, due in enumerate((0.0, 0.2, 0.4, 0.6, 1.5)):
        tally.send(index, due=due, now=due)
    tally.receive(result(0, 0.1))
    tally.receive(result(1, 0.2, address="b:1", retried=("unreachable", "overloaded")))
    tally.receive(result(2, 0.3, retried=("unreachable",)))
    tally.receive(result(3, 0.4, error=Overloaded("full")))
    tally.skip(due=1.7)
    report = make_report(plan, tally, ended=3.0, cpu=0.25)
    assert (report.sent, report.answered, report.failed) == (5, 3, 1)
    assert (report.unfinished, report.not_sent, report.interrupted) == (1, 1, True)
    assert report.errors == {"overloaded": 1}
    assert report.retries == {"unreachable": 2, "overloaded": 1}
    assert (report.images_per_s, report.mb_per_s) == (1.5, 0.002)
    assert report.in_flight == 0.5
    assert [(each.address, each.images) for each in report.workers] == [("a:1", 2), ("b:1", 1)]
    assert report.workers[0].share == pytest.approx(2 / 3, abs=1e-4)
    assert [(each.images_per_s, each.failed) for each in report.over_time] == [(3, 0), (0, 1)]
    assert report.over_time[1].p99_ms is None
    assert not report.good


def test_an_early_end_shortens_the_time() -> None:
    tally = Tally(begin=10.0, seconds=60.0)
    tally.send(0, due=10.0, now=10.0)
    tally.receive(result(0, 0.1))
    report = make_report(Plan(model="digits", seconds=60.0), tally, ended=11.25, cpu=0.1)
    assert (report.interrupted, report.seconds, report.images_per_s) == (True, 1.25, 0.8)
    assert [each.at_s for each in report.over_time] == [0, 1]
    assert report.good


def test_what_has_to_be_known_is_said() -> None:
    def notes(plan: Plan, *, cpu: float = 0.1, lag_s: float = 0.0, held: bool = False) -> str:
        tally = Tally(begin=0.0, seconds=1.0)
        tally.send(0, due=0.0, now=lag_s, held=held)
        return " ".join(make_report(plan, tally, ended=1.0, cpu=cpu).notes)

    loop = Plan(model="digits", rate=5.0, max_outstanding=7)
    assert notes(loop) == ""
    assert "closed loop" in notes(Plan(model="digits"))
    assert "itself a bottleneck: it used 95% of a core" in notes(loop, cpu=0.95)
    assert "itself a bottleneck: it sent 1 % of the images over 50 ms late" in notes(
        loop, lag_s=0.05
    )
    assert "100% of the images were sent late because 7 were outstanding" in notes(loop, held=True)


def test_a_closed_loop_has_no_response_time_but_by_estimate() -> None:
    tally = Tally(begin=0.0, seconds=2.0)
    tally.send(0, due=0.0, now=0.0)
    tally.receive(result(0, 1.0))
    plan = Plan(model="digits", seconds=2.0)
    assert make_report(plan, tally, ended=2.0, cpu=0.1).response_ms is None
    plan = Plan(model="digits", seconds=2.0, expected_interval_s=0.25)
    report = make_report(plan, tally, ended=2.0, cpu=0.1)
    assert report.response_ms is not None
    assert report.response_ms.mean == pytest.approx(625, rel=0.001)
    assert report.service_ms.mean == 1000
