"""Counts and latencies of the images of a load test."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.load_test.measuring.histogram import Histogram

if TYPE_CHECKING:
    from fingerpost.client import Result

__all__ = ["Slice", "Tally"]

_MOST_SLICES: Final = 600


class Slice:
    """The answers and failures that arrived in a part of the measured time."""

    __slots__ = ("bytes", "failed", "response")

    def __init__(self) -> None:
        self.response = Histogram()
        self.bytes = 0
        self.failed = 0


class Tally:
    """Counts images from the time they are due until their result arrives.

    An image counts if it was due in the measured time, whenever its result arrives. The throughput
    counts all results that arrive within the measured time; they are in `slices`.

    Each answer has two latencies. The service time begins at the actual sending. The response time
    begins when the image was due, so that a stall shows in all images that it delayed, and not only
    in those that were in flight (wrk2's rule against coordinated omission; Tene, 'How NOT to
    Measure Latency', 2013).

    Times are in seconds of one monotonic clock.

    Attributes:
        begin, end: the measured time.
        sent: images that were due in the measured time and were sent.
        answered: images of `sent` that got a prediction.
        errors: images of `sent` that got an error, by its code.
        retries: failed attempts that were repeated, by the code of their error.
        held: images sent late because too many were outstanding.
        not_sent: images whose deadline had passed before they could be sent.
        lag: how late images were sent, apart from those in `held`.
        response, service: latencies of the answered images.
        workers: service times by the address of the worker.
        slices: equal parts of the measured time, of about one second; at most 600.
        busy_s: total time in flight of the images whose result arrived in the measured time.
    """

    def __init__(self, begin: float, seconds: float) -> None:
        self.begin = begin
        self.end = begin + seconds
        self.sent = self.answered = self.held = self.not_sent = 0
        self.errors: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.lag = Histogram()
        self.response = Histogram()
        self.service = Histogram()
        self.workers: dict[str, Histogram] = {}
        self.slices = [Slice() for _ in range(min(_MOST_SLICES, ceil(seconds)))]
        self.busy_s = 0.0
        self._under_way: dict[int, tuple[float, float]] = {}

    @property
    def outstanding(self) -> int:
        """Number of images that were sent and have no result yet."""
        return len(self._under_way)

    def send(self, index: int, *, due: float, now: float, held: bool = False) -> None:
        """An image is sent; `held` says that it is late because too many were outstanding."""
        self._under_way[index] = (due, now)
        if due >= self.begin:
            self.sent += 1
            if held:
                self.held += 1
            else:
                self.lag.record(now - due)

    def skip(self, *, due: float) -> None:
        """The deadline of an image has passed before it was sent."""
        self.not_sent += due >= self.begin

    def receive(self, result: Result) -> None:
        """The result of an image has arrived."""
        due, sent = self._under_way.pop(result.index)
        service_s = result.elapsed_s
        response_s = sent - due + service_s
        self._arrive(sent + service_s, response_s, result)
        if due < self.begin:
            return
        self.retries.update(result.retried)
        if result.error is not None:
            self.errors[result.error.code] += 1
            return
        self.answered += 1
        self.response.record(response_s)
        self.service.record(service_s)
        self.workers.setdefault(result.address, Histogram()).record(service_s)

    def _arrive(self, at: float, response_s: float, result: Result) -> None:
        if not self.begin <= at < self.end:
            return
        self.busy_s += result.elapsed_s
        part = (at - self.begin) / (self.end - self.begin)
        found = self.slices[int(part * len(self.slices))]
        if result.error is not None:
            found.failed += 1
            return
        found.bytes += result.image_bytes
        found.response.record(response_s)
