"""A simulated cluster that tenants share: production's balancers, batchers and fair queues.

Images come as Poisson processes, or each client keeps some under way. A client picks a worker by
its own `Balancer`, after asking some for their load where that is worth it; a message takes half a
round trip; a run of a batch takes `run_s`, within 10 %.
What a worker refuses waits in its client, the oldest first, until the worker has said to come back.
Seeded; times are virtual.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, Final

from msgspec import UNSET

from fingerpost.basics.moving_average import ewma
from fingerpost.client.routing import Balancer, Endpoint, Outcome, Pick, RoutingConfig, make_policy
from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Snapshot,
    WorkerState,
)
from fingerpost.registry.load import ClassLoad
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow

__all__ = ["MAX_BATCH", "WORKERS", "Tenant", "capacity", "run_s", "simulate"]

WORKERS: Final = 16
MAX_BATCH: Final = 8
_QUEUE: Final = 64
_RTT_S: Final = 0.001
_IMAGE_MB: Final = 0.1
_DEADLINE_S: Final = 3.0
_MODEL: Final = ModelReference("m")
_PROBES: Final = RoutingConfig().probing
_CLASSES: Final = ("interactive", "batch")


def run_s(size: int) -> float:
    """Seconds of a batch: 10 ms, and 2 ms an image."""
    return 0.01 + 0.002 * size


def capacity() -> float:
    """Images a second of all workers with full batches."""
    return WORKERS * MAX_BATCH / run_s(MAX_BATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant's clients and what they send.

    Attributes:
        clients: how many there are.
        rate: images a second, of all its clients; 0 for those that keep images under way.
        at_once: images that each client keeps under way, where there is no rate.
        rank: of the class.
    """

    name: str
    clients: int = 10
    rate: float = 0.0
    at_once: int = 0
    weight: float = 1.0
    rank: int = 0


@dataclass(slots=True)
class Outcomes:
    """What came of a tenant's images after the warm-up.

    Attributes:
        latencies: seconds to the answer.
        failed: images without one.
        run_s: seconds of the workers' runs, each shared out among its images.
    """

    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    run_s: float = 0.0

    def quantile(self, share: float) -> float:
        """A quantile of the seconds to the answer."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))]


class _Image:
    __slots__ = ("answers", "begun", "born", "client", "pick")

    def __init__(self, client: _Client, born: float) -> None:
        self.client = client
        self.born = born
        self.answers = 0  # of probes that it still waits for
        self.begun = False
        self.pick: Pick | None = None


class _Client:
    def __init__(self, tenant: Tenant, flow: Flow, snapshot: Snapshot) -> None:
        self.tenant = tenant
        self.flow = flow
        config = RoutingConfig()
        self.balancer = Balancer(make_policy(config), config, None, _CLASSES[tenant.rank])
        self.balancer.update(snapshot, 0.0)
        self.waiting: deque[_Image] = deque()
        self.wakes_at = inf
        self.reported_at = -inf
        self.answer_s = 0.0


class _Worker:
    def __init__(self) -> None:
        config = BatchingConfig(max_batch=MAX_BATCH, max_queue=_QUEUE)
        self.batcher: Batcher[_Image] = Batcher(config)
        self.by_rank = [0, 0]
        self.seq = 0

    def report(self, now: float, flow: Flow) -> LoadReport:
        """The load as it concerns a flow, as `WorkerService.load` makes it."""
        self.seq += 1
        slots = max(1, round(self.batcher.sizes.capacity))
        expected_s, alone_s = self.batcher.forecast(now, 0)
        waiting = self.batcher.order.tenants()
        shared = bool(waiting) and waiting != {flow.tenant}
        if shared and alone_s:
            expected_s = max(alone_s, self.batcher.expected_s(now, flow=flow))
        loads: dict[str, ClassLoad] = {}
        rif = 0
        for rank, name in enumerate(_CLASSES if self.by_rank[1] else ()):
            rif += self.by_rank[rank]
            of_class_s = self.batcher.forecast(now, 0, rank)[0]
            own = shared and rank == flow.rank
            loads[name] = ClassLoad(rif=rif, expected_s=expected_s if own else of_class_s)
        return LoadReport(
            rif=sum(self.by_rank),
            slots=slots,
            state=WorkerState.READY,
            boot_id=1,
            seq=self.seq,
            expected_s=expected_s,
            alone_s=alone_s,
            tenants=len(waiting | {flow.tenant}) if shared else UNSET,
            classes=loads or UNSET,
        )


class _Simulation:
    def __init__(
        self, tenants: Sequence[Tenant], seconds: float, warm_up_s: float, *, fair: bool, seed: int
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.seconds, self.warm_up_s = seconds, warm_up_s
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.count = 0
        self.workers = [_Worker() for _ in range(WORKERS)]
        instances = tuple(
            Instance(
                id=str(index),
                service="m",
                host="10.0.0.1",
                ports={"http": 1 + index},
                models=(ModelInfo(name="m", versions=("1",)),),
                boot_id=1,
            )
            for index in range(WORKERS)
        )
        snapshot = Snapshot(service="m", instances=instances, known=True, index=1, taken_at=0.0)
        self.outcomes = {tenant.name: Outcomes() for tenant in tenants}
        for tenant in tenants:
            flow = Flow(tenant.name, tenant.rank, tenant.weight) if fair else DEFAULT_FLOW
            clients = [_Client(tenant, flow, snapshot) for _ in range(tenant.clients)]
            if tenant.rate:
                self.at(0.0, self.arrive, tenant, clients)
            for client in clients * tenant.at_once:
                self.at(0.02 * self.rng.random(), self.begin, client)

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        self.count += 1
        heappush(self.heap, (when, self.count, action, arguments))

    def run(self) -> dict[str, Outcomes]:
        while self.heap:
            self.now, _, action, arguments = heappop(self.heap)
            if self.now > self.seconds:
                break
            action(*arguments)
        return self.outcomes

    # Clients

    def arrive(self, tenant: Tenant, clients: list[_Client]) -> None:
        self.at(self.now + self.rng.expovariate(tenant.rate), self.arrive, tenant, clients)
        self.begin(self.rng.choice(clients))

    def begin(self, client: _Client) -> None:
        image, probing = _Image(client, self.now), client.balancer.probing
        if probing.worth_waiting(client.answer_s, client.reported_at, self.now):
            # Never the likely ones: tenants share these workers.
            image.answers = probing.answers(self.probe(client, probing.ahead(self.now), image))
        self.probe(client, probing.on_request(self.now))
        if image.answers:
            self.at(self.now + _PROBES.sync_timeout_s, self.queue, image)
        else:
            self.queue(image)

    def queue(self, image: _Image) -> None:
        """Send an image as soon as there is a place; once, after its probes."""
        client = image.client
        if image.begun:
            return
        image.begun = True
        client.waiting.append(image)
        if len(client.waiting) == 1 or client.wakes_at == inf:
            self.send(client)

    def probe(self, client: _Client, count: int, image: _Image | None = None) -> int:
        """Ask some workers for their load, as `Prober` does; return how many."""
        found = client.balancer.to_probe(_MODEL, count, self.now, self.rng)
        for endpoint in found:
            self.at(self.now + _RTT_S / 2, self.probed, client, endpoint, image)
        return len(found)

    def probed(self, client: _Client, endpoint: Endpoint, image: _Image | None) -> None:
        report = self.workers[int(endpoint.id)].report(self.now, client.flow)
        self.at(self.now + _RTT_S / 2, self.reported, client, endpoint, report, image)

    def reported(
        self, client: _Client, endpoint: Endpoint, report: LoadReport, image: _Image | None
    ) -> None:
        client.balancer.probing.answered(_RTT_S)
        client.balancer.reported(endpoint, report, self.now, probed=True)
        client.reported_at = self.now
        if image is not None:
            image.answers -= 1
            if not image.answers:
                self.at(self.now, self.queue, image)

    def send(self, client: _Client) -> None:
        """Send images that wait, the oldest first, as long as there is a place."""
        client.wakes_at = inf
        while client.waiting:
            image = client.waiting[0]
            if self.now - image.born > _DEADLINE_S:
                client.waiting.popleft()
                self.done(image, answered=False)
                continue
            found = client.balancer.pick(_MODEL, tried=(), now=self.now, rng=self.rng)
            if not isinstance(found, Pick):
                client.wakes_at = min(self.now + 0.1, self.now if found is None else found.until)
                client.wakes_at = max(client.wakes_at, self.now + 1e-4)
                self.at(client.wakes_at, self.wake, client, client.wakes_at)
                return
            client.waiting.popleft()
            image.pick = found
            self.at(self.now + _RTT_S / 2, self.submit, image, self.workers[int(found.endpoint.id)])

    def wake(self, client: _Client, when: float) -> None:
        if client.wakes_at == when:
            self.send(client)

    def answered(self, image: _Image, outcome: Outcome, report: LoadReport, retry_s: float) -> None:
        client, pick = image.client, image.pick
        assert pick is not None
        pick.release(
            outcome,
            now=self.now,
            rng=self.rng,
            load_report=report,
            retry_after_s=retry_s or None,
            sent_mb=_IMAGE_MB if outcome is Outcome.ANSWERED else 0.0,
            backpressure=True,
        )
        if outcome is Outcome.ANSWERED:
            client.answer_s = ewma(client.answer_s, self.now - pick.at, 0.1)
            self.done(image, answered=True)
        else:
            client.waiting.appendleft(image)
        self.send(client)

    def done(self, image: _Image, *, answered: bool) -> None:
        found = self.outcomes[image.client.tenant.name]
        if self.now >= self.warm_up_s:
            if answered:
                found.latencies.append(self.now - image.born)
            else:
                found.failed += 1
        if image.client.tenant.at_once:
            self.at(self.now, self.begin, image.client)

    # Workers

    def submit(self, image: _Image, worker: _Worker) -> None:
        batcher, flow = worker.batcher, image.client.flow
        try:
            batcher.submit(image, cost=_IMAGE_MB, now=self.now, flow=flow)
        except (Overloaded, DeadlineExceeded) as error:
            self.reply(image, worker, Outcome.OVERLOADED, error.retry_after_s or 0.05)
            return
        worker.by_rank[image.client.tenant.rank] += 1
        while batcher.pushed_out:
            gone = batcher.pushed_out.pop().item
            worker.by_rank[gone.client.tenant.rank] -= 1
            self.reply(gone, worker, Outcome.OVERLOADED, batcher.expected_s(self.now) or 0.05)
        self.poll(worker)

    def poll(self, worker: _Worker) -> None:
        batch = worker.batcher.poll(self.now)
        if batch is not None and batch.items:
            took_s = run_s(batch.size) * self.rng.uniform(0.9, 1.1)
            self.at(self.now + took_s, self.ran, worker, batch)
            if self.now >= self.warm_up_s:
                for pending in batch.items:
                    tenant = pending.item.client.tenant.name
                    self.outcomes[tenant].run_s += took_s / len(batch.items)

    def ran(self, worker: _Worker, batch: Any) -> None:
        worker.batcher.complete(self.now, batch)
        self.poll(worker)
        for pending in batch.items:
            worker.by_rank[pending.item.client.tenant.rank] -= 1
        for pending in batch.items:
            self.reply(pending.item, worker, Outcome.ANSWERED, 0.0)

    def reply(self, image: _Image, worker: _Worker, outcome: Outcome, retry_s: float) -> None:
        report = worker.report(self.now, image.client.flow)
        self.at(self.now + _RTT_S / 2, self.answered, image, outcome, report, retry_s)


def simulate(
    tenants: Sequence[Tenant],
    *,
    seconds: float = 12.0,
    warm_up_s: float = 2.0,
    fair: bool = True,
    seed: int = 7,
) -> dict[str, Outcomes]:
    """What comes of each tenant's images.

    Args:
        seconds: when it ends, in virtual time.
        warm_up_s: what ends before counts nowhere.
        fair: whether workers tell tenants apart.
    """
    return _Simulation(tenants, seconds, warm_up_s, fair=fair, seed=seed).run()
