"""What lies between a client and the workers: the network alone, or a proxy that relays.

Everything in which the two ways differ is here and in `relay`: the routing, the retries and the
connections know of a way and not which one. Rejected: a second dispatcher for the relay, which
would have to repeat the retries, and asking for a mode wherever it matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from fingerpost.client.routing import Outcome
from fingerpost.errors import CallerError, DeadlineExceeded, Draining, FingerpostError, Overloaded

if TYPE_CHECKING:
    from fingerpost.client.result import Stats
    from fingerpost.registry import Instance, Snapshot

__all__ = ["DIRECT", "Direct", "Origin", "Way"]


class Origin(NamedTuple):
    """Where an answer came from: see `Result`; empty where that is not known."""

    worker: str = ""
    address: str = ""
    relay: str = ""


class Way(Protocol):
    """How images get to workers. A peer is whom the client itself sends them to."""

    @property
    def path(self) -> str:
        """Where a peer takes images, up to the model's name."""

    @property
    def own_load(self) -> bool:
        """Whether load reports are the peer's own, so that it can be asked for them."""

    def peers(self, view: Snapshot) -> Snapshot:
        """The same view, with the peers as its instances."""

    def judge(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """What an answer with an error says about the peer, and what to tell the caller.

        A `CallerError` of a peer that has not `ANSWERED` is its own word, not the cluster's.
        """

    def origin(self, peer: Instance, worker: str) -> Origin:
        """Who answered: this peer, or the worker (id and address) that it named."""

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """Count image bytes that were sent this way."""


class Direct:
    """Straight to the workers."""

    path: Final = "/v1/classify/"
    own_load: Final = True

    def peers(self, view: Snapshot) -> Snapshot:
        """See `Way`."""
        return view

    def judge(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """See `Way`."""
        match error:
            case Overloaded():
                return Outcome.OVERLOADED, error
            case Draining():
                return Outcome.DRAINING, error
            case CallerError():
                return Outcome.ANSWERED, error
            case DeadlineExceeded():
                return Outcome.ABANDONED, error
            case _:
                return Outcome.FAILED, error

    def origin(self, peer: Instance, worker: str) -> Origin:
        """See `Way`."""
        return Origin(peer.id, peer.address)

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """See `Way`."""
        stats.bytes_sent += sent_bytes


DIRECT: Final = Direct()
