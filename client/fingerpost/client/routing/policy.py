"""The seam between the balancer, which knows who may be picked, and the rule that picks one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.registry import LoadReport

__all__ = ["Candidate", "Policy"]


class Candidate(Protocol):
    """What a policy may know of a worker. The values are live: read them in `pick`, keep none."""

    @property
    def id(self) -> str:
        """The instance's id, the key for whatever a policy remembers of it."""
        ...

    @property
    def weight(self) -> int:
        """Its share relative to others, 1 to 65535."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests this client has sent it and not yet seen the end of."""
        ...

    @property
    def load(self) -> LoadReport | None:
        """Its freshest load report; None before its first answer or probe."""
        ...

    @property
    def load_at(self) -> float:
        """When that report arrived, in monotonic seconds; minus infinity while there is none."""
        ...

    @property
    def per_slot(self) -> float:
        """What one request adds to its pressure."""
        ...

    @property
    def pressure(self) -> float:
        """Requests there per slot: those of the report, and those sent since; unweighted."""
        ...

    @property
    def local_pressure(self) -> float:
        """The same from this client's own count alone, for a report that is too old."""
        ...

    @property
    def answer_s_per_mb(self) -> float:
        """Expected time at the worker for a megabyte of image where nobody waits; 0 if unknown."""
        ...

    @property
    def transfer_s_per_mb(self) -> float:
        """Expected time on the way, for each of the requests that share it; 0 if unknown."""
        ...

    @property
    def seconds_per_mb(self) -> float:
        """The sum of both: a megabyte's expected time at a worker that nobody else uses."""
        ...

    @property
    def sent_at(self) -> float:
        """When it was last sent a request; minus infinity before the first."""
        ...

    @property
    def first_at(self) -> float:
        """When it was first sent one since it started; infinity before that."""
        ...

    @property
    def failed_until(self) -> float:
        """Until when a recent failure keeps it from being called cold."""
        ...


C = TypeVar("C", bound=Candidate)


class Policy(Protocol):
    """A rule that picks one of several workers.

    `pick` is called for every attempt, so it is synchronous and reads at most some 16 candidates.
    """

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """Return one of `candidates`, which is never empty and is never changed afterwards.

        Draining, ejected and already tried workers are not among them, unless there are no
        others. The one returned counts as in flight before the next call.
        """
        ...

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """A fresh report came, of a probe or with an answer; most rules have nothing to do."""
        return
