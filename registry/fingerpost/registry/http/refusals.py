"""Connections that this process did not take, counted by the cause."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

__all__ = ["REFUSED_CONNECTIONS", "RefusedConnections"]

REFUSED_CONNECTIONS: Final[Counter[str]] = Counter()
"""How many there were: too many in all (`max_connections`) or of one address (`max_per_client`), no
descriptor was left (`descriptors`), or the TLS handshake failed (`tls_handshake`)."""

_REASONS: Final = ("max_connections", "max_per_client", "descriptors", "tls_handshake")


class RefusedConnections(Collector):
    """`REFUSED_CONNECTIONS` for Prometheus."""

    def collect(self) -> Iterable[Metric]:
        """One sample for each reason, also where it is 0."""
        refused = CounterMetricFamily(
            "fingerpost_refused_connections",
            "Connections that were closed at once, by the cause",
            labels=["reason"],
        )
        for reason in _REASONS:
            refused.add_metric([reason], REFUSED_CONNECTIONS[reason])
        yield refused
