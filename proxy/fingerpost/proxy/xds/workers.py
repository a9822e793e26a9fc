"""What xDS tells of a service's workers, as values: no protocol buffer, no network."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from fingerpost.registry import ModelReference, WorkerState
from fingerpost.security.tls.spiffe import worker_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fingerpost.registry import Instance, LoadReport
    from fingerpost.security.tls import TlsConfig

__all__ = ["Client", "Target", "Worker", "Workers", "workers_of"]


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


class Client(msgspec.Struct, frozen=True):
    """What is known of a client, as far as its resources depend on it.

    Attributes:
        zone: where it is; empty where it does not say.
        certificate: it has a certificate to show to workers.
        models: those that it may use; None is all.
    """

    zone: str = ""
    certificate: bool = False
    models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may use a model, and so is told of it."""
        return self.models is None or model in self.models


class Worker(msgspec.Struct, frozen=True, cache_hash=True):
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


class Workers(msgspec.Struct, frozen=True):
    """The workers of a model that one client can use together.

    Attributes:
        all: by zone and address.
        tls: they are connected to by TLS.
        names: what their certificates must have one of, where they speak TLS.
    """

    all: tuple[Worker, ...]
    tls: bool
    names: tuple[str, ...]


def workers_of(
    target: Target,
    instances: Iterable[Instance],
    reports: Mapping[str, LoadReport],
    tls: TlsConfig,
) -> Workers:
    """The workers that have the transport.

    All of a cluster speak TLS, or none: while a cluster changes over, those are told of that are
    more, as xDS has one rule for all of them. Those whose host is a name are left out: clients
    refuse the whole list then.

    Args:
        target: which model, version or alias, and by which transport.
        instances: those that serve it, and accept connections.
        reports: the last load report of each, by id.
        tls: how the proxy itself connects to workers. With a trust domain a certificate must have
            the SPIFFE id of the service, else the host of one of these workers.
    """
    by_tls: dict[bool, list[Worker]] = {True: [], False: []}
    for each in instances:
        port = each.ports.get(target.transport)
        # Envoy would need to be told the authority of each cluster's certificates.
        if port is None or (target.transport == "http" and each.speaks_tls):
            continue
        if not _is_address(each.host):
            continue
        report = reports.get(each.id)
        draining = report is not None and report.state is WorkerState.DRAINING
        by_tls[each.speaks_tls].append(
            Worker(host=each.host, port=port, zone=each.zone, weight=each.weight, draining=draining)
        )
    demanded = tls.ca is not None and not tls.allow_plain and target.transport == "grpc"
    secured = demanded or len(by_tls[True]) >= max(1, len(by_tls[False]))
    found = sorted(by_tls[secured], key=lambda each: (each.zone, each.host, each.port))
    names: Iterable[str] = ()
    if secured and tls.trust_domain is not None:
        names = (worker_id(tls.trust_domain, target.reference.model),)
    elif secured:
        names = sorted({each.host for each in found})
    return Workers(all=tuple(found), tls=secured, names=tuple(names))


@lru_cache(maxsize=4096)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
