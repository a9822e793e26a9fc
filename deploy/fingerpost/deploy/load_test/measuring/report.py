"""The figures of a load test, for tables and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.deploy.load_test.measuring.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fingerpost.deploy.load_test.measuring.histogram import Histogram
    from fingerpost.deploy.load_test.measuring.tally import Slice, Tally

__all__ = ["Latency", "Moment", "Report", "Share", "make_report"]

_LATE_MS: Final = 10.0
_BUSY: Final = 0.9
_SOME: Final = 0.01


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles, maximum and mean of latencies, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    mean: float

    @classmethod
    def of(cls, histogram: Histogram) -> Latency:
        """The figures of a histogram; all 0 if it is empty."""
        p50, p90, p99, p99_9 = (_ms(each) for each in histogram.percentiles(50, 90, 99, 99.9))
        most, mean = _ms(histogram.max_s), _ms(histogram.mean_s)
        return cls(p50=p50, p90=p90, p99=p99, p99_9=p99_9, max=most, mean=mean)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The images that one worker answered, their share (0 to 1) and service times."""

    address: str
    images: int
    share: float
    p50_ms: float
    p99_ms: float


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """The answers that arrived in a slice of about one second, which begins at `at_s`."""

    at_s: float
    images_per_s: float
    mb_per_s: float
    failed: int
    p50_ms: float | None = None
    p99_ms: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a load test.

    Attributes:
        plan: the settings.
        loop: `open` or `closed`.
        seconds: duration of the measurement; shorter than planned if it was `interrupted`.
        interrupted: whether it ended before its time, or before all answers came.
        sent: images that were sent: the sum of `answered`, `failed` and `unfinished`.
        answered: images that got a prediction.
        failed: images that got an error.
        unfinished: images without an answer when the run was interrupted.
        not_sent: images whose deadline passed before they could be sent; not part of `sent`.
        errors: number of failed images by the code of their error.
        retries: number of failed attempts that were repeated, by the code of their error.
        images_per_s: images answered within the measured time, a second.
        mb_per_s: megabytes of these images, a second.
        in_flight: mean number of images in flight (Little's law).
        response_ms: latency from the time an image was due. In a closed loop, the service time
            corrected by the plan's `expected_interval_s`, or None without it.
        service_ms: latency from the sending of the image.
        held: images sent late because too many were outstanding.
        lag_ms: how late the other images were sent, which is due to this program.
        cpu: share of one core that this program used.
        workers: the figures of each worker, the busiest first.
        over_time: the figures of each slice, in order of time.
        spectrum_ms: pairs of percent and milliseconds for `service` and, if known, `response`.
        notes: remarks that are needed to read the figures.
    """

    plan: Plan
    loop: str
    seconds: float
    interrupted: bool
    sent: int
    answered: int
    failed: int
    unfinished: int
    not_sent: int
    errors: dict[str, int]
    retries: dict[str, int]
    images_per_s: float
    mb_per_s: float
    in_flight: float
    response_ms: Latency | None
    service_ms: Latency
    held: int
    lag_ms: Latency
    cpu: float
    workers: list[Share]
    over_time: list[Moment]
    spectrum_ms: dict[str, list[tuple[float, float]]]
    notes: list[str]

    @property
    def good(self) -> bool:
        """Whether all images were sent and answered, apart from the unfinished ones."""
        return self.answered > 0 and not self.failed and not self.not_sent


def make_report(plan: Plan, tally: Tally, *, ended: float, cpu: float) -> Report:
    """The figures of a tally at the time `ended`, of the tally's clock; `cpu` as in `Report`."""
    seconds = max(1e-9, min(ended, tally.end) - tally.begin)
    failed = tally.errors.total()
    unfinished = tally.sent - tally.answered - failed
    known = {"service": tally.service}
    if plan.rate is not None:
        known["response"] = tally.response
    elif plan.expected_interval_s is not None:
        known["response"] = tally.service.corrected(plan.expected_interval_s)
    latencies = {name: Latency.of(each) for name, each in known.items()}
    arrived = sum(each.response.count for each in tally.slices)
    lag = Latency.of(tally.lag)
    return Report(
        plan=plan,
        loop="closed" if plan.rate is None else "open",
        seconds=round(seconds, 3),
        interrupted=ended < tally.end or unfinished > 0,
        sent=tally.sent,
        answered=tally.answered,
        failed=failed,
        unfinished=unfinished,
        not_sent=tally.not_sent,
        errors=dict(tally.errors.most_common()),
        retries=dict(tally.retries.most_common()),
        images_per_s=round(arrived / seconds, 2),
        mb_per_s=round(sum(each.bytes for each in tally.slices) / seconds / 1e6, 3),
        in_flight=round(tally.busy_s / seconds, 2),
        response_ms=latencies.get("response"),
        service_ms=latencies["service"],
        held=tally.held,
        lag_ms=lag,
        cpu=round(cpu, 3),
        workers=_shares(tally),
        over_time=_over_time(tally, seconds),
        spectrum_ms={
            name: [(round(percent, 6), _ms(value_s)) for percent, value_s in each.spectrum()]
            for name, each in known.items()
        },
        notes=list(_notes(plan, tally, lag, cpu)),
    )


def _notes(plan: Plan, tally: Tally, lag: Latency, cpu: float) -> Iterator[str]:
    if plan.rate is None:
        yield (
            "closed loop: while an answer is late no other image is sent in its place, so these "
            "latencies do not show how long users would have waited; --rate shows that"
        )
    if not tally.sent and not tally.not_sent:
        yield "no image was due in that time; raise --rate or --seconds"
    if tally.not_sent:
        yield (
            f"{tally.not_sent:,} images were not sent before their deadline: more were due than "
            f"the cluster answers with at most {plan.max_outstanding:,} outstanding"
        )
    if tally.held > _SOME * tally.sent:
        yield (
            f"{tally.held / tally.sent:.0%} of the images were sent late because "
            f"{plan.max_outstanding:,} were outstanding (--max-outstanding); the response time "
            "includes that wait, the service time does not"
        )
    if lag.p99 > _LATE_MS:
        yield (
            f"this program was itself a bottleneck: it sent 1 % of the images over "
            f"{lag.p99:.0f} ms late; run several at a lower rate, or run it on another machine"
        )
    if cpu > _BUSY:
        yield (
            f"this program was itself a bottleneck: it used {cpu:.0%} of a core and cannot use "
            "more than one; run several at once"
        )


def _shares(tally: Tally) -> list[Share]:
    found = []
    for address, service in tally.workers.items():
        p50, p99 = service.percentiles(50, 99)
        found.append(
            Share(
                address=address,
                images=service.count,
                share=round(service.count / tally.answered, 4),
                p50_ms=_ms(p50),
                p99_ms=_ms(p99),
            )
        )
    return sorted(found, key=lambda each: (-each.images, each.address))


def _over_time(tally: Tally, seconds: float) -> list[Moment]:
    width = (tally.end - tally.begin) / len(tally.slices)
    return [
        _moment(each, number * width, min(width, seconds - number * width))
        for number, each in enumerate(tally.slices)
        if number * width < seconds
    ]


def _moment(part: Slice, at_s: float, seconds: float) -> Moment:
    p50 = p99 = None
    if part.response.count:
        p50, p99 = (_ms(each) for each in part.response.percentiles(50, 99))
    return Moment(
        at_s=round(at_s, 3),
        images_per_s=round(part.response.count / seconds, 2),
        mb_per_s=round(part.bytes / seconds / 1e6, 3),
        failed=part.failed,
        p50_ms=p50,
        p99_ms=p99,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
