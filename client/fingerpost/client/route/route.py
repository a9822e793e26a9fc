"""How images reach the workers: directly, or through a proxy that relays them.

Everything in which the two routes differ is here and in `relay`: the routing, the retries and the
connections use a `Route` without knowing which one it is. Rejected: a second dispatcher for the
relay, which would repeat the retries, and a mode that is tested wherever it matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    BadAnswer,
    CallerError,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    MethodNotAllowed,
    Misdirected,
    NoWorker,
    Overloaded,
    UnknownModel,
    UnknownPath,
)
from fingerpost.registry.instance import split_target

if TYPE_CHECKING:
    from ssl import SSLContext

    from fingerpost.client.credential import Credential
    from fingerpost.client.result import Stats
    from fingerpost.registry import Instance, Snapshot
    from fingerpost.security.tls import ClientTls

__all__ = ["DIRECT", "DirectRoute", "Origin", "Route"]

# With these statuses answers what is not a worker at all: another server has the address.
_NOT_A_WORKER: Final = frozenset({404, 405, 410, 421, 501})


class Origin(msgspec.Struct, frozen=True):
    """Where an answer came from, as `Result` has it; empty where that is not known."""

    worker: str = ""
    address: str = ""
    relay: str = ""


class Route(Protocol):
    """How images reach the workers. A peer is what the client itself connects to."""

    @property
    def path(self) -> str:
        """The path at which a peer takes images, without the model's name."""
        ...

    @property
    def infer_path(self) -> str:
        """The same for models of any task."""
        ...

    @property
    def own_load(self) -> bool:
        """Whether a peer's load reports are about the peer itself, so that it can be probed."""
        ...

    @property
    def credential(self) -> Credential | None:
        """What is sent to a peer so that it knows the caller; workers get none."""
        ...

    def peers(self, view: Snapshot) -> Snapshot:
        """The snapshot with the peers as its instances."""
        ...

    def classify_error(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """What an error in an answer says about the peer, and the error for the caller.

        A `CallerError` whose outcome is not `ANSWERED` may be due to this peer alone.
        """
        ...

    def missing(self, view: Snapshot) -> NoWorker | None:
        """Why no instance of a snapshot is a peer; None where it has none that could be."""
        ...

    def context(self, tls: ClientTls, target: str) -> SSLContext | None:
        """For a connection to a peer's `Instance.target`; None for one without TLS."""
        ...

    def origin(self, peer: Instance, worker: str) -> Origin:
        """What answered: the peer, or the worker (id and address) that the peer named."""
        ...

    def foreign_head(self, peer: Instance, path: str) -> str:
        """The request line and header fields for a foreign worker that takes images at `path`."""
        ...

    def foreign_address(self, peer: Instance) -> str:
        """The address of the foreign worker to which this peer leads."""
        ...

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """Count image bytes that were sent over this route."""
        ...


class DirectRoute:
    """The client connects to the workers."""

    path = "/v1/classify/"
    infer_path = "/v1/infer/"
    own_load = True
    credential = None

    def peers(self, view: Snapshot) -> Snapshot:
        """The workers: the snapshot as it is."""
        return view

    def missing(self, view: Snapshot) -> NoWorker | None:
        """See `Route.missing`."""
        return None

    def classify_error(
        self, address: str, status: int, error: FingerpostError
    ) -> tuple[Outcome, FingerpostError]:
        """See `Route.classify_error`."""
        match error:
            case Overloaded():
                return Outcome.OVERLOADED, error
            case Draining():
                return Outcome.DRAINING, error
            case Misdirected() | UnknownModel() | UnknownPath() | MethodNotAllowed():
                return Outcome.STALE, error
            case BadAnswer() if status in _NOT_A_WORKER:
                return Outcome.STALE, error
            case CallerError():
                return Outcome.ANSWERED, error
            case DeadlineExceeded():
                return Outcome.ABANDONED, error
            case _:
                return Outcome.FAILED, error

    def context(self, tls: ClientTls, target: str) -> SSLContext | None:
        """See `Route.context`. Raises `TlsFailed` where the worker speaks no TLS, and must."""
        service = split_target(target)[1]
        if service == "" or target.startswith("http://"):  # foreign: its entry was accepted
            return None if service is None else tls.for_host()
        return tls.for_worker(service or "", speaks_tls=service is not None, peer=target)

    def origin(self, peer: Instance, worker: str) -> Origin:
        """The peer, which is a worker."""
        return Origin(peer.id, peer.address)

    def foreign_head(self, peer: Instance, path: str) -> str:
        """See `Route.foreign_head`: the path at the worker."""
        return f"POST {path} HTTP/1.1\r\nHost: {peer.address}\r\n"

    def foreign_address(self, peer: Instance) -> str:
        """See `Route.foreign_address`: the peer's own."""
        return peer.address

    def count(self, stats: Stats, sent_bytes: int) -> None:
        """Count image bytes that went straight to a worker."""
        stats.bytes_sent += sent_bytes


DIRECT: Final = DirectRoute()
