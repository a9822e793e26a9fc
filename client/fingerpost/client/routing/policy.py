"""The interface of a routing policy: what it must do, and what it can know of each worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.registry import LoadReport

__all__ = ["Candidate", "Policy"]


class Candidate(Protocol):
    """A worker that may be picked, as a policy sees it.

    The values are live: they change with every request and report. Read them in `Policy.pick`,
    and do not keep them.
    """

    @property
    def id(self) -> str:
        """The instance's id: the key for whatever a policy remembers about a worker."""
        ...

    @property
    def weight(self) -> int:
        """The worker's share relative to others, 1 to 65535."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that this client has sent to it, and that have not ended."""
        ...

    @property
    def load_report(self) -> LoadReport | None:
        """Its newest load report; None before its first answer."""
        ...

    @property
    def load_report_at(self) -> float:
        """When that report arrived, in monotonic seconds; minus infinity if there is none."""
        ...

    @property
    def inverse_slots(self) -> float:
        """1 / slots of the worker: what one request adds to `requests_per_slot`."""
        ...

    @property
    def requests_per_slot(self) -> float:
        """Requests at the worker, by its report and what was sent since, per slot."""
        ...

    @property
    def local_requests_per_slot(self) -> float:
        """The requests of this client alone, per slot; for a report that is too old."""
        ...

    @property
    def backlog(self) -> float:
        """How long a new image would wait there, in times that it takes where it is alone."""
        ...

    @property
    def weighted_backlog(self) -> float:
        """`backlog` / `weight`: what hot-cold calls the load."""
        ...

    @property
    def cost_s_per_mb(self) -> float:
        """What hot-cold compares: `cost_at` the `weighted_backlog`."""
        ...

    def cost_at(self, load: float) -> float:
        """What an image costs here at this load, in seconds a megabyte.

        `compute_s_per_mb` x (1 + load + (1 + 1 / slots) load^2) + `upload_s_per_mb`. For a worker
        that makes no forecast the last factor is 2: its slots may be the places of a batch.
        """
        ...

    def least_cost(self, now: float) -> float:
        """The `cost_s_per_mb` that it has now if nobody sent anything there since its report."""
        ...

    @property
    def compute_s_per_mb(self) -> float:
        """Expected seconds for a megabyte of image at the worker if idle; 0 if unknown."""
        ...

    @property
    def transfer_s_per_mb(self) -> float:
        """Expected seconds for a megabyte on the network if it has the link alone; 0 if unknown."""
        ...

    @property
    def upload_s_per_mb(self) -> float:
        """Expected seconds for a megabyte on a link that it shares with the requests there."""
        ...

    @property
    def expected_s_per_mb(self) -> float:
        """The sum of `compute_s_per_mb` and `transfer_s_per_mb`."""
        ...

    @property
    def last_sent_at(self) -> float:
        """When it was last sent a request, in monotonic seconds; minus infinity if never."""
        ...

    @property
    def first_sent_at(self) -> float:
        """When it was first sent a request since it started; infinity if never."""
        ...

    @property
    def suspect_until(self) -> float:
        """Until when a recent failure makes it a suspect, in monotonic seconds."""
        ...


C = TypeVar("C", bound=Candidate)


class Policy(Protocol):
    """Picks one of several workers for each request.

    Derive from it to write a policy of your own, and name the class or a function that makes one
    as `RoutingConfig.policy`. Each service of a client has its own instance, which is used from
    one thread.
    """

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """Return one of `candidates`.

        It is called for every attempt, so it must not block, and should read at most some 16
        candidates: there may be a thousand.

        Args:
            candidates: the usable workers, at least one. Workers that are draining, ejected or
                tried already are left out, unless there are no others. The sequence is not
                changed afterwards: what was computed from it can be kept while the same object
                is passed again.
            now: monotonic seconds.
            rng: the source of randomness, so that simulations can be repeated.

        Returns:
            The candidate for the request. It counts as in flight before the next call.
        """
        ...

    def likely(self, candidates: Sequence[C], now: float, rng: Random) -> Sequence[C] | None:
        """Which workers to ask for their load before a request that is about to be picked for.

        Args:
            candidates: the usable workers; see `pick`.
            now: monotonic seconds.
            rng: the source of randomness.

        Returns:
            Those that it most likely goes to, first; the balancer asks the first few that have not
            just reported. None, the default, to draw them at random.
        """
        return None

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Take note of a new load report of `candidate`; by default this does nothing.

        Args:
            candidate: the worker; its `load_report` is the new one.
            now: monotonic seconds.
            probed: it is the answer to a probe, rather than a part of an image's answer.
        """
        return
