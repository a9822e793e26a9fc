"""All workers of one service as one client sees them: whom to pick, and what came of it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fingerpost.client.routing.endpoint import Endpoint
from fingerpost.client.routing.probing import Probing
from fingerpost.client.routing.slow_start import SlowStart
from fingerpost.client.routing.sticky import Sticky
from fingerpost.client.routing.subset import subset

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.outcome import Outcome
    from fingerpost.client.routing.policy import Policy
    from fingerpost.registry import LoadReport, ModelReference, Snapshot

__all__ = ["Balancer", "Pick", "RetryAt"]


class Pick:
    """One request placed on one worker; `release` it exactly once, whatever happens."""

    __slots__ = ("_balancer", "_released", "_requests", "at", "endpoint", "trial")

    def __init__(self, balancer: Balancer, endpoint: Endpoint, at: float, *, trial: bool) -> None:
        self.endpoint = endpoint
        self.at = at
        self.trial = trial
        self._balancer = balancer
        self._requests = endpoint.requests(at)
        self._released = False

    def release(
        self,
        outcome: Outcome,
        *,
        now: float,
        rng: Random,
        load: LoadReport | None = None,
        retry_after_s: float | None = None,
        sent_mb: float = 0.0,
        worker_s: float | None = None,
    ) -> None:
        """Tell how it ended.

        Args:
            outcome: what it says about the worker.
            now: monotonic seconds.
            rng: varies the length of an ejection.
            load: the load report that came along.
            retry_after_s: what the worker asked for.
            sent_mb: megabytes of image; without them the time taken is no sample of latency.
            worker_s: how much of that time the worker says it took; the rest was the network.

        Raises:
            RuntimeError: it was released before, which would leave the count wrong for good.
        """
        if self._released:
            raise RuntimeError(f"a pick of worker {self.endpoint.id} was released twice")
        self._released = True
        changed = self.endpoint.finished(
            outcome,
            picked_at=self.at,
            trial=self.trial,
            now=now,
            rng=rng,
            retry_after_s=retry_after_s,
            sent_mb=sent_mb,
            worker_s=worker_s,
            requests=self._requests,
        )
        if changed:
            self._balancer.regroup()
        if load is not None:
            self._balancer.reported(self.endpoint, load, now, probed=False)


class RetryAt:
    """Nobody to pick before `until`: all were tried (then it is now), or all are overloaded."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class _Group:
    """The workers that serve one reference, and those of them that are usable before `until`.

    `steady` are the usable ones that are not new. In panic mode the failing count as usable.
    """

    __slots__ = ("endpoints", "steady", "until", "usable")

    def __init__(
        self, endpoints: Sequence[Endpoint], now: float, *, eject_share: float, starting: SlowStart
    ) -> None:
        self.endpoints = endpoints
        self.until = inf
        usable: list[Endpoint] = []
        failing: list[Endpoint] = []
        for endpoint in endpoints:
            at = endpoint.ejection.usable_from()
            if at <= now:
                usable.append(endpoint)
                continue
            self.until = min(self.until, at)
            if endpoint.ejection.failing and endpoint.ejection.busy_until <= now:
                failing.append(endpoint)
        if len(failing) > eject_share * len(endpoints):
            usable += failing
        new = {endpoint.id for endpoint in usable if starting.until(endpoint) > now}
        if new:
            self.until = min(
                self.until, *(starting.until(each) for each in usable if each.id in new)
            )
        self.usable = usable
        self.steady = [each for each in usable if each.id not in new] if new else usable


class Balancer:
    """The routing table of one service.

    A pick takes constant time, because the usable workers are kept as a list that is made anew
    only after a change: a snapshot, an ejection and its end, a trial, an overload, draining.
    Not safe for several threads.

    Args:
        policy: the rule; each balancer has its own instance.
        config: see `RoutingConfig`.
        client_id: names this client among many, which then each use a subset of a large fleet;
            None for a lone one, which uses all.
    """

    def __init__(self, policy: Policy, config: RoutingConfig, client_id: str | None = None) -> None:
        self._policy = policy
        self._config = config
        self._client_id = client_id
        self._starting = SlowStart(config)
        self._sticky = Sticky()
        self._endpoints: dict[str, Endpoint] = {}
        self._groups: dict[ModelReference, _Group] = {}
        self.probing = Probing(config)
        self.snapshot: Snapshot | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All workers of the last snapshot, in its order."""
        return tuple(self._endpoints.values())

    def update(self, snapshot: Snapshot, now: float) -> None:
        """Take a snapshot. Workers that stay keep their record; a new id or boot id has none.

        A worker that joins others starts slowly. Picks of workers that vanished stay valid: the
        requests go on, and are released as usual.
        """
        endpoints = {}
        new_at = now if self._endpoints else -inf
        for instance in snapshot.instances:
            endpoint = self._endpoints.get(instance.id)
            if endpoint is None or not endpoint.renew(instance):
                endpoint = Endpoint(instance, self._config, new_at)
                endpoint.credit_at = self._starting.picks
            endpoints[instance.id] = endpoint
        self._endpoints = endpoints
        self.snapshot = snapshot
        self.regroup()

    def regroup(self) -> None:
        """Who is usable may have changed."""
        self._groups.clear()

    def reported(
        self, endpoint: Endpoint, load: LoadReport, now: float, *, probed: bool, unseen: int = 0
    ) -> None:
        """A load report came: the answer to a probe, or along with an answer.

        `unseen` is how many requests were sent there while the probe was under way.
        """
        if endpoint.reported(load, now, unseen):
            self.regroup()
        if endpoint.load is load and self._endpoints.get(endpoint.id) is endpoint:
            self._policy.reported(endpoint, now, probed=probed)

    def pick(
        self,
        reference: ModelReference,
        *,
        tried: Collection[str],
        now: float,
        rng: Random,
        key: str | None = None,
    ) -> Pick | RetryAt | None:
        """Place one request, passing over the worker ids in `tried` while there are others.

        Requests of the same `key` go to the same worker, as long as it is usable.

        Returns a `Pick`; a `RetryAt` where another attempt should wait (call again without `tried`
        then); None where no worker serves `reference`. Nothing is ever left without a worker by
        ejection alone: if all are ejected or draining, all are picked from.
        """
        group = self._group(reference, now)
        if group is None:
            return None
        pool: Sequence[Endpoint] = group.usable
        steady: Sequence[Endpoint] = group.steady
        if not pool:
            busy = [each.ejection.busy_until for each in group.endpoints]
            busy_until = min((until for until in busy if until > now), default=None)
            if busy_until is not None:
                return RetryAt(busy_until)
            pool = steady = group.endpoints
        if tried:
            pool = [endpoint for endpoint in pool if endpoint.id not in tried]
            if not pool:
                return RetryAt(now)
            steady = [endpoint for endpoint in steady if endpoint.id not in tried]
        self._starting.picks += 1
        if key is not None:
            endpoint = self._sticky.pick(pool, key)
        else:
            endpoint = self._policy.pick(pool, now, rng)
            if (
                steady
                and self._starting.until(endpoint) > now
                and not self._starting.admits(endpoint, len(pool), now)
            ):
                endpoint = self._policy.pick(steady, now, rng)
        trial = endpoint.dispatched(now)
        if trial:
            self.regroup()
        return Pick(self, endpoint, now, trial=trial)

    def to_probe(
        self, reference: ModelReference, count: int, now: float, rng: Random
    ) -> list[Endpoint]:
        """`count` different workers to ask for a load report now.

        Fewer where there are fewer, or where they said it less than `probe_fresh_s` ago.
        """
        group = self._group(reference, now)
        if group is None:
            return []
        oldest = now - self._config.probe_fresh_s
        drawn = self.probing.draw(group.usable, count, rng)
        return [each for each in drawn if each.load_at <= oldest]

    def _group(self, reference: ModelReference, now: float) -> _Group | None:
        group = self._groups.get(reference)
        if group is not None and now < group.until:
            return group
        if self.snapshot is None:
            return None
        endpoints: Sequence[Endpoint] = [
            self._endpoints[each.id] for each in self.snapshot.matching(reference)
        ]
        if not endpoints:
            return None
        if self._client_id is not None:
            endpoints = subset(endpoints, self._client_id, self._config.subset_size)
        group = self._groups[reference] = _Group(
            endpoints, now, eject_share=self._config.eject_share, starting=self._starting
        )
        return group
