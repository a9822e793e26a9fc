"""The parts of a simulated cluster: clients, workers, links and requests."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.moving_average import ewma, time_weight
from fingerpost.client.routing import Balancer, Budget, Pick, make_policy
from fingerpost.client.routing.line import WaitingLine
from fingerpost.registry import Instance, LoadReport, ModelInfo, Snapshot, WorkerState
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.serving.oldest_first import OldestFirst

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.routing.scenario import Scenario

__all__ = ["NO_WORKERS", "Client", "Link", "Request", "Worker", "snapshot_of"]

NO_WORKERS: Final[frozenset[str]] = frozenset()
_LEAST: Final = 0.05  # of a worker's average of its answers
_NEWEST: Final = 0.6


class Request:
    """An image that a client wants classified."""

    __slots__ = (
        *("attempts", "awaits", "begun", "born", "client", "done", "mb", "preceded"),
        *("called", "pick", "alone_s", "queue", "retry_after_s", "started", "tried", "work"),
    )

    def __init__(self, client: Client, born: float, mb: float, work: float) -> None:
        self.client = client
        self.born = born
        self.mb = mb
        self.work = work
        self.started = 0.0
        self.retry_after_s: float | None = None
        self.queue = 1.0
        self.alone_s: float | None = None
        self.begun = False
        self.awaits = self.preceded = self.attempts = 0
        self.tried: frozenset[str] = NO_WORKERS
        self.pick: Pick | None = None
        self.done = self.called = False


class Client:
    """The state of one client; in production that of `Dispatcher`, `Service` and `Prober`."""

    __slots__ = (
        *("asked", "balancer", "budget", "line", "link", "mb", "reported_at", "seconds", "timer"),
    )

    def __init__(self, scenario: Scenario) -> None:
        config, mb_per_s = scenario.routing, scenario.client_mb_per_s
        self.link = Link(mb_per_s) if mb_per_s else None
        self.balancer = Balancer(make_policy(config), config)
        self.budget = Budget(config.retries)
        self.timer = False
        self.line: WaitingLine[Request] = WaitingLine()
        self.asked: set[str] = set()
        self.reported_at = -inf
        self.seconds = self.mb = 0.0

    def call_next(self) -> Request | None:
        """The request that has waited longest for a place, and is not done meanwhile."""
        while (request := self.line.call()) is not None:
            if not request.done:
                request.called = True
                return request
            self.line.done()
        return None


class Link:
    """The link of a worker, or of a client, which uploads share evenly, as with TCP.

    Attributes:
        changes: how often an upload began or ended; counted by the simulation.
    """

    __slots__ = ("_at", "_count", "_each_mb", "_mb_per_s", "_uploads", "changes")

    def __init__(self, mb_per_s: float) -> None:
        self._mb_per_s = mb_per_s
        self._at = self._each_mb = 0.0  # by `_at`, this much of each upload has arrived
        self._uploads: list[tuple[float, int, Any]] = []
        self._count = self.changes = 0

    @property
    def busy(self) -> bool:
        """Whether there are uploads."""
        return bool(self._uploads)

    def add(self, now: float, mb: float, what: Any) -> None:
        """Begin an upload."""
        self._go_on(now)
        self._count += 1
        heappush(self._uploads, (self._each_mb + mb, self._count, what))

    def ends_at(self, now: float) -> float:
        """When the next upload ends, if nothing changes."""
        if not self._uploads:
            return inf
        left_mb = max(0.0, self._uploads[0][0] - self._each_mb)
        return now + left_mb * len(self._uploads) / self._mb_per_s

    def end(self, now: float) -> Any:
        """End the next upload, and return what was uploaded."""
        self._go_on(now)
        return heappop(self._uploads)[2]

    def cancel(self, now: float, what: Any) -> bool:
        """End an upload that is cut off; False if it was none."""
        left = [each for each in self._uploads if each[2] != what]
        if len(left) == len(self._uploads):
            return False
        self._go_on(now)
        heapify(left)
        self._uploads = left
        return True

    def _go_on(self, now: float) -> None:
        if self._uploads:
            self._each_mb += (now - self._at) * self._mb_per_s / len(self._uploads)
        self._at = now


class Worker:
    """A simulated worker: a queue, and the images that it works on."""

    __slots__ = (
        *("batcher", "busy", "factor", "latency", "link", "mb", "mode"),
        "oldest_first",
        *("queue", "rif", "sampled_at", "seq", "slots", "speed"),
    )

    def __init__(self, speed: float, scenario: Scenario, mb_per_s: float) -> None:
        self.speed = speed
        self.slots = scenario.slots
        self.batcher: Batcher[Any] | None = None
        if scenario.batch_s is not None:
            config = BatchingConfig(max_batch=scenario.slots, max_queue=scenario.max_in_flight)
            self.batcher = Batcher(config, concurrent_batches=scenario.concurrent_batches)
            for size in (1, 1, scenario.slots):  # its warm-up
                works = [scenario.service_s] * size
                self.batcher.sizes.measured(size, scenario.batch_time_s(works) / speed)
        self.link = Link(mb_per_s)
        self.factor = 1.0
        self.mode = "up"
        self.busy = self.rif = self.seq = 0
        self.latency = self.mb = self.sampled_at = 0.0
        self.oldest_first = OldestFirst()
        self.queue: deque[Request] = deque()

    def report(self, now: float) -> LoadReport:
        """Its load report now."""
        self.seq += 1
        base = self.latency / self.mb if self.mb else 0.0
        slots, expected_s, alone_s = self.slots, 0.0, 0.0
        if self.batcher is not None:
            slots = max(1, round(self.batcher.sizes.capacity))
            uploading = self.rif - self.batcher.present
            expected_s, alone_s = self.batcher.forecast(now, uploading)
        return LoadReport(
            rif=self.rif,
            slots=slots,
            state=WorkerState.READY,
            boot_id=1,
            seq=self.seq,
            latency_per_cost_s=base * max(1.0, self.rif / slots),
            expected_s=expected_s,
            alone_s=alone_s,
        )

    def sample(self, request: Request, now: float) -> float:
        """Count the time of an image that is done in the average; return it, in seconds."""
        worker_s = now - request.started
        weight = time_weight(now - self.sampled_at, _LEAST, _NEWEST) if self.mb else 1.0
        self.sampled_at = now
        alone_s = worker_s / request.queue if request.alone_s is None else request.alone_s
        self.latency = ewma(self.latency, alone_s, weight)
        self.mb = ewma(self.mb, request.mb, weight)
        return worker_s

    def refuses(self, request: Request, made: Pick, scenario: Scenario, now: float) -> bool:
        """Whether it is overloaded: its queue is full, or kept for older requests."""
        waited_s = now - request.born if made.endpoint.overload.limit < inf else 0.0
        crowded = 4 * (self.rif - self.slots) >= scenario.max_in_flight - self.slots
        older = crowded and self.oldest_first.contended(now) and self.oldest_first.defers(waited_s)
        if not older and self.rif < scenario.max_in_flight:
            return False
        queue_s = scenario.service_s * self.rif / self.slots / self.speed / self.factor
        request.retry_after_s = self.oldest_first.refused(waited_s, queue_s, now)
        return True

    def message_s(self, scenario: Scenario) -> float:
        """Seconds for a message to it, which waits behind the uploads on its link."""
        return scenario.rtt_s / 2 + (scenario.link_delay_s if self.link.busy else 0.0)

    def take(self, limit: int) -> list[Any]:
        """Up to so many images of the queue, without those whose clients have gone."""
        taken: list[Any] = []
        while self.queue and len(taken) < limit:
            argument: Any = self.queue.popleft()
            if argument[0].done:
                self.rif -= 1
            else:
                taken.append(argument)
        return taken


def snapshot_of(listed: Iterable[int], index: int, now: float) -> Snapshot:
    """What the registry says while workers of these numbers are listed."""
    instances = tuple(
        Instance(
            id=str(number),
            service="m",
            host="10.0.0.1",
            ports={"http": 1 + number},
            models=(ModelInfo(name="m", versions=("1",)),),
            boot_id=1,
        )
        for number in sorted(listed)
    )
    return Snapshot(service="m", instances=instances, known=True, index=index, taken_at=now)
