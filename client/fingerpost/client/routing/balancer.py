"""The routing table of one service: picks a worker for each request, and learns how it ended."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.endpoint import Endpoint
from fingerpost.client.routing.group import Group
from fingerpost.client.routing.image_size import ImageSize
from fingerpost.client.routing.outcome import Outcome
from fingerpost.client.routing.probing import Probing
from fingerpost.client.routing.retry_at import RetryAt
from fingerpost.client.routing.slow_start import SlowStart
from fingerpost.client.routing.sticky import Sticky
from fingerpost.client.routing.subset import subset
from fingerpost.client.routing.upload_limit import UploadLimit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import Policy
    from fingerpost.registry import LoadReport, ModelReference, Snapshot

__all__ = ["Balancer", "Pick"]

# Where all workers are full, they are looked at again after this, if nothing was answered before.
_LONGEST_S: Final = 1.0


class Pick:
    """A request assigned to a worker. Call `release` exactly once, however the request ends.

    Attributes:
        endpoint: the worker.
        at: when it was picked, in monotonic seconds.
        trial: it is the one request that decides whether an ejected worker is used again.
    """

    __slots__ = (
        *("_backlog", "_balancer", "_mb", "_released", "_requests", "_upload_ends_at", "_uploads"),
        *("at", "endpoint", "trial"),
    )

    def __init__(
        self,
        balancer: Balancer,
        endpoint: Endpoint,
        at: float,
        *,
        trial: bool,
        mb: float = 0.0,
    ) -> None:
        self.endpoint = endpoint
        self.at = at
        self.trial = trial
        self._mb = mb
        self._uploads = endpoint.uploads
        if self._uploads is not None:
            self._upload_ends_at = self._uploads.ends_at
        self._balancer = balancer
        self._requests = endpoint.requests(at)
        self._backlog = endpoint.backlog
        self._released = False

    def release(
        self,
        outcome: Outcome,
        *,
        now: float,
        rng: Random,
        load_report: LoadReport | None = None,
        retry_after_s: float | None = None,
        sent_mb: float = 0.0,
        worker_s: float | None = None,
        backpressure: bool = False,
        cut_off: bool = False,
    ) -> None:
        """Record how the request ended.

        Args:
            outcome: how it ended.
            now: monotonic seconds.
            rng: varies the length of an ejection.
            load_report: the load report that came with the answer.
            retry_after_s: the `Retry-After` of the answer.
            sent_mb: megabytes of image sent; 0 if the time taken is not a sample of latency.
            worker_s: the part of the time that the worker spent, by its own account; the rest was
                the network.
            backpressure: an overloaded worker has no place for one more request, and answers the
                others; see `OverloadLimit`. Otherwise it is left out for its `Retry-After`.
            cut_off: its deadline passed during its upload; see `UploadLimit`.

        Raises:
            RuntimeError: it was released before, which would leave the count wrong for good.
        """
        if self._released:
            raise RuntimeError(f"a pick of worker {self.endpoint.id} was released twice")
        self._released = True
        if cut_off:
            self._balancer.cut_off(self.endpoint, now)
        if (uploads := self._uploads) is not None:
            if outcome is Outcome.ANSWERED:
                uploads.answered(self._mb, self.at, self._upload_ends_at, now, worker_s)
            elif cut_off:
                uploads.late(self._mb, self.at, self._upload_ends_at, now)
            else:
                uploads.ended(self._mb)
        elif self.endpoint.uploads is not None:
            self.endpoint.uploads.uncounted(now)
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
            backlog=self._backlog,
            backpressure=backpressure,
        )
        if changed:
            self._balancer.regroup()
        if self.endpoint.overload.limit < inf:
            self._balancer.limited()
        if load_report is not None:
            self._balancer.reported(self.endpoint, load_report, now, probed=False)


class Balancer:
    """The routing table of one service.

    `pick` takes constant time: the list of usable endpoints is kept, and made again only after a
    change (a snapshot, an ejection or its end, a trial, an overload, draining). Not thread-safe.

    Args:
        policy: picks one of the usable endpoints. Each balancer needs an instance of its own.
        config: see `RoutingConfig`.
        client_id: names this client among many, each of which uses a subset of a large fleet;
            None for a lone client, which uses all workers.
        priority: the class of the requests; None for the first one. Of each load report the figures
            of that class count.
    """

    def __init__(
        self,
        policy: Policy,
        config: RoutingConfig,
        client_id: str | None = None,
        priority: str | None = None,
    ) -> None:
        self._policy = policy
        self._priority = priority
        self._config = config
        self._client_id = client_id
        self._slow_start = SlowStart(config.slow_start)
        self._sticky = Sticky()
        self._image_size = ImageSize()
        self._endpoints: dict[str, Endpoint] = {}
        self._groups: dict[ModelReference, Group] = {}
        self._uploads: UploadLimit | None = None  # of all endpoints where an upload was cut off
        self._limited = False  # whether a worker has refused a request, so that its limit counts
        self._min_interval_s = config.probing.worker_min_interval_s
        self.probing = Probing(config.probing)
        self.snapshot: Snapshot | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints of all workers in the last snapshot, in its order."""
        return tuple(self._endpoints.values())

    def update(self, snapshot: Snapshot, now: float) -> None:
        """Replace the list of workers by that of a snapshot.

        The endpoint of a worker that stays is kept. A worker with a new id, boot id or address
        gets a new endpoint, which starts slowly if there were others before. A pick of a worker
        that is no longer listed stays valid: its request goes on, and is released as usual.
        """
        endpoints = {}
        new_at = now if self._endpoints else -inf
        for instance in snapshot.instances:
            endpoint = self._endpoints.get(instance.id)
            if endpoint is None or not endpoint.renew(instance, now):
                endpoint = Endpoint(instance, self._config, new_at, self._image_size)
                endpoint.credit_at = self._slow_start.picks
            endpoints[instance.id] = endpoint
        self._endpoints = endpoints
        self.snapshot = snapshot
        self.regroup()

    def limited(self) -> None:
        """Note that a worker accepts a limited number of requests."""
        self._limited = True

    def cut_off(self, endpoint: Endpoint, now: float) -> None:
        """Note that a deadline passed during an upload to a worker: see `UploadLimit`."""
        uploads = self._uploads
        if uploads is None or now >= uploads.needed_until:
            uploads = self._uploads = UploadLimit(now)
        uploads.cut_off(now)
        endpoint.uploads = uploads

    def regroup(self) -> None:
        """Determine again which endpoints are usable, at the next pick."""
        self._groups.clear()

    def reported(
        self,
        endpoint: Endpoint,
        load_report: LoadReport,
        now: float,
        *,
        probed: bool,
        unseen: int = 0,
    ) -> None:
        """Take in a load report.

        Args:
            endpoint: whose report it is.
            load_report: the report; ignored if it is older than the last one.
            now: monotonic seconds.
            probed: it is the answer to a probe, rather than a part of an image's answer.
            unseen: requests sent there while the probe was in flight, which it may not include.
        """
        if load_report.classes:
            load_report = load_report.of_class(self._priority)
        if endpoint.reported(load_report, now, unseen):
            self.regroup()
        if endpoint.load_report is load_report and self._endpoints.get(endpoint.id) is endpoint:
            self._policy.reported(endpoint, now, probed=probed)

    def pick(
        self,
        reference: ModelReference,
        *,
        tried: Collection[str],
        now: float,
        rng: Random,
        key: str | None = None,
        mb: float = 0.0,
        deadline: float = inf,
    ) -> Pick | RetryAt | None:
        """Assign one request to a worker.

        If all workers are ejected or draining, it is one of them, so that ejection alone never
        leaves a request without a worker.

        Args:
            reference: the model that is asked for.
            tried: ids of workers that this request does not go to.
            now: monotonic seconds.
            rng: the source of randomness.
            key: requests with the same key go to the same worker, as long as it is usable.
            mb: megabytes of its image; 0 if they are not known.
            deadline: of the request, in monotonic seconds; see `UploadLimit`.

        Returns:
            A `Pick`; a `RetryAt` where the request has to wait (call again then, without
            `tried`); None if no worker serves `reference`.
        """
        group = self._group(reference, now)
        if group is None:
            return None
        pool: Sequence[Endpoint] = group.usable
        steady: Sequence[Endpoint] = group.steady
        if not pool:
            overloaded = [each.ejection.overloaded_until for each in group.endpoints]
            overloaded_until = min((until for until in overloaded if until > now), default=None)
            if overloaded_until is not None:
                return RetryAt(overloaded_until, overloaded=True)
            pool = steady = group.endpoints
        if self._limited:
            self._limited = any(each.overload.limit < inf for each in group.endpoints)
            pool = [each for each in pool if each.overload.allows(each.in_flight)]
            if not pool:
                return self._full(group, now)
            steady = [each for each in steady if each.overload.allows(each.in_flight)]
        if tried:
            pool = [endpoint for endpoint in pool if endpoint.id not in tried]
            if not pool:
                return RetryAt(now)
            steady = [endpoint for endpoint in steady if endpoint.id not in tried]
        self._slow_start.picks += 1
        if key is not None:
            endpoint = self._sticky.pick(pool, key)
        else:
            endpoint = self._policy.pick(pool, now, rng)
            if (
                endpoint.new_at > -inf
                and steady
                and self._slow_start.until(endpoint) > now
                and not self._slow_start.admits(endpoint, len(pool), now)
            ):
                endpoint = self._policy.pick(steady, now, rng)
        if endpoint.uploads is not None and not endpoint.may_upload(mb, deadline, now):
            allowed = [each for each in pool if each.may_upload(mb, deadline, now)]
            if not allowed:
                until = min(each.may_upload_at(mb, deadline, now) for each in pool)
                return RetryAt(until, overloaded=True, full=until < inf)
            endpoint = self._policy.pick(allowed, now, rng)
        trial = endpoint.dispatched(now, mb)
        if trial:
            self.regroup()
        return Pick(self, endpoint, now, trial=trial, mb=mb)

    def _full(self, group: Group, now: float) -> RetryAt:
        """Why no worker has a place: all have as many requests of this client as they accept."""
        until = now + _LONGEST_S
        for each in group.endpoints:
            if now < each.ejection.overloaded_until < until:
                until = each.ejection.overloaded_until
        return RetryAt(until, overloaded=True, full=True)

    def serving(self, reference: ModelReference, now: float) -> Sequence[Endpoint]:
        """The endpoints that a request for `reference` may go to, usable or not."""
        group = self._group(reference, now)
        return () if group is None else group.endpoints

    def likely(
        self, reference: ModelReference, now: float, rng: Random
    ) -> Sequence[Endpoint] | None:
        """Which endpoints to ask before a request that waits for the answers: `Policy.likely`."""
        group = self._group(reference, now)
        return None if group is None else self._policy.likely(group.usable, now, rng)

    def to_probe(
        self,
        reference: ModelReference,
        count: int,
        now: float,
        rng: Random,
        *,
        likely: Sequence[Endpoint] | None = None,
        asked: Collection[str] = (),
    ) -> list[Endpoint]:
        """Up to `count` different endpoints to ask for a load report now.

        Without foreign ones that have none, without those that are being asked, and without those
        whose last report is not older than `ProbingConfig.worker_min_interval_s`.

        Args:
            reference: the model of the request.
            count: most endpoints.
            now: monotonic seconds.
            rng: the source of randomness.
            likely: the first of these are asked. None to draw at random: the rest must be heard
                of, too.
            asked: ids of those that have not answered yet.
        """
        group = self._group(reference, now)
        if group is None:
            return []
        drawn = self.probing.draw(group.usable, count, rng) if likely is None else likely
        oldest = now - self._min_interval_s
        found = [
            each
            for each in dict.fromkeys(drawn)  # a deck that runs out may deal one twice
            if each.load_report_at <= oldest and each.instance.load_target and each.id not in asked
        ]
        return found[:count]

    def _group(self, reference: ModelReference, now: float) -> Group | None:
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
        group = self._groups[reference] = Group(
            endpoints,
            now,
            max_ejected_share=self._config.ejection.max_ejected_share,
            slow_start=self._slow_start,
        )
        return group
