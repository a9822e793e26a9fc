"""Metrics that every process of Fingerpost has: what it is, and what it uses."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import Gauge, ProcessCollector

from fingerpost.registry.http.refusals import RefusedConnections
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from fingerpost.security.tls import ServerTls
    from fingerpost.security.tls.certificate import OwnCertificate

__all__ = ["add_process_metrics"]


def add_process_metrics(registry: CollectorRegistry, tls: ServerTls | None = None) -> None:
    """Add `process_*` (memory, processor time, descriptors), the build and refused connections.

    `process_*` are prometheus_client's, read from `/proc` at each scrape; elsewhere there are none.

    Args:
        registry: to add them to.
        tls: the certificate that the process serves with; the end of its validity is a metric.
    """
    ProcessCollector(registry=registry)
    registry.register(RefusedConnections())
    Gauge(
        "fingerpost_build_info",
        "1; the labels say what runs",
        ["version", "python"],
        registry=registry,
    ).labels(__version__, platform.python_version()).set(1)
    if tls is not None:
        Gauge(
            "fingerpost_tls_certificate_not_before_timestamp_seconds",
            "Since when the certificate that is served with is valid, as Unix time",
            registry=registry,
        ).set_function(lambda: _current(tls).not_before)
        Gauge(
            "fingerpost_tls_certificate_not_after_timestamp_seconds",
            "Until when the certificate that is served with is valid, as Unix time",
            registry=registry,
        ).set_function(lambda: _current(tls).not_after)


def _current(tls: ServerTls) -> OwnCertificate:
    """The certificate, read again where its file has changed.

    Otherwise that happens only for new connections, and Prometheus keeps its one.
    """
    tls.current()
    return tls.certificate
