"""What became of each image of a load test."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.load_test.histogram import Histogram

if TYPE_CHECKING:
    from fingerpost.client import Result

__all__ = ["Slice", "Tally"]

_MOST_SLICES: Final = 600


class Slice:
    """What came in a part of the measured time: answers, their bytes and latencies; failures."""

    __slots__ = ("bytes", "failed", "response")

    def __init__(self) -> None:
        self.response = Histogram()
        self.bytes = 0
        self.failed = 0


class Tally:
    """Counts images from when they are due until their result is there.

    An image belongs to the measured time if it was due in it, whenever its result comes; what
    arrived within that time, of whichever image, makes up the throughput, in `slices`.

    Two times are kept of each answer. The service time counts from the actual sending; the
    response time from when the image was due, so that a stall shows in all images that it held
    up, and not only in those it caught in flight (wrk2's rule against coordinated omission; Tene,
    'How NOT to Measure Latency', 2013).

    Times are seconds of one monotonic clock.

    Attributes:
        begin, end: the measured time.
        sent, answered: images due in it; of those sent, others failed, or were cut off.
        errors: failed images by the code of their error.
        retries: failed attempts that were followed by another, by the code of their error.
        held: images sent late because too many were outstanding.
        not_sent: images whose deadline had passed before they could be sent.
        lag: by how much images were sent late that were not held.
        response, service: of the answered images.
        workers: service times by the address that answered.
        slices: equal parts of the measured time, at most 600; a second, or a little less.
        busy_s: the time, added up, that what arrived within the measured time had been under way.
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
        """Images sent whose result is not there."""
        return len(self._under_way)

    def send(self, index: int, *, due: float, now: float, held: bool = False) -> None:
        """An image goes out; `held` where it is late because too many were outstanding."""
        self._under_way[index] = (due, now)
        if due >= self.begin:
            self.sent += 1
            if held:
                self.held += 1
            else:
                self.lag.record(now - due)

    def skip(self, *, due: float) -> None:
        """An image's deadline has passed before it was sent."""
        self.not_sent += due >= self.begin

    def receive(self, result: Result) -> None:
        """An image's result is there."""
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
