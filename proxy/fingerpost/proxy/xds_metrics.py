"""The metrics of a proxy's xDS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["XdsMetrics"]


class XdsMetrics:
    """Who is connected, what was sent, and what clients did not accept."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge(
            "fingerpost_proxy_xds_streams", "Clients of xDS that are connected", registry=registry
        )
        self.rejecting = Gauge(
            "fingerpost_proxy_xds_rejecting_streams",
            "Clients of xDS that have refused what they were told last, of some kind",
            registry=registry,
        )
        self.responses = Counter(
            "fingerpost_proxy_xds_responses",
            "Responses of xDS that were sent, by kind of resource",
            ["kind"],
            registry=registry,
        )
        self.rejected = Counter(
            "fingerpost_proxy_xds_rejected",
            "Responses of xDS that a client refused (NACK), by kind of resource; the log has why",
            ["kind"],
            registry=registry,
        )
