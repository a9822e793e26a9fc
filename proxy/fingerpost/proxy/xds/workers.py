"""What xDS tells of a service's workers, as values: no protocol buffer, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.registry import ModelReference, WorkerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fingerpost.registry import Instance, LoadReport

__all__ = ["Target", "Worker", "workers_of"]


class Target(msgspec.Struct, frozen=True):
    """What a client follows: a model, or one version or alias of it, by a transport.

    Attributes:
        reference: the model.
        transport: `grpc`, or `http` for an Envoy beside a plain HTTP program.
    """

    reference: ModelReference
    transport: str

    @property
    def cluster(self) -> str:
        """The name of its cluster, and of its list of endpoints."""
        prefix = "" if self.transport == "grpc" else f"{self.transport}/"
        return f"{prefix}{self.reference}"


class Worker(msgspec.Struct, frozen=True):
    """A worker as a client of xDS sees it.

    Attributes:
        draining: it takes no new connection; what it has, it answers.
        weight: its share relative to others, 1 or more.
    """

    host: str
    port: int
    zone: str
    weight: int
    draining: bool


def workers_of(
    target: Target, instances: Iterable[Instance], reports: Mapping[str, LoadReport]
) -> tuple[Worker, ...]:
    """The workers that have the transport, sorted by zone and address.

    Args:
        target: which model, version or alias, and by which transport.
        instances: those that serve it, and accept connections.
        reports: the last load report of each, by id.
    """
    found = []
    for each in instances:
        port = each.ports.get(target.transport)
        # Envoy would need to be told the authority of each cluster's certificates.
        if port is None or (target.transport == "http" and each.speaks_tls):
            continue
        report = reports.get(each.id)
        draining = report is not None and report.state is WorkerState.DRAINING
        found.append(
            Worker(host=each.host, port=port, zone=each.zone, weight=each.weight, draining=draining)
        )
    return tuple(sorted(found, key=lambda each: (each.zone, each.host, each.port)))
