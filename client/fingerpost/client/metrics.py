"""What a client has done, as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from fingerpost.client.client import Client
    from fingerpost.client.sync import SyncClient

__all__ = ["ClientMetrics"]


class ClientMetrics(Collector):
    """A client's counters, read when they are asked for, so that they cost an image nothing.

    ::

        prometheus_client.REGISTRY.register(ClientMetrics(client))

    Import it from here: `fingerpost.client` itself does not load prometheus-client.
    """

    def __init__(self, client: Client | SyncClient) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        stats = self._client.stats
        for name, text, value in (
            ("attempts", "Requests sent to workers, or tried to", stats.attempts),
            ("stale_addresses", "Attempts at listed workers that refused", stats.stale_addresses),
            ("hedges", "Second attempts because an answer was late", stats.hedges),
            ("ejections", "Times a worker was left out after failures", stats.ejections),
            ("probes", "Load reports asked for", stats.probes),
            ("probes_lost", "Load reports that did not come in time", stats.probes_lost),
            ("silences", "Times a worker was given up as silent", stats.silences),
            ("lookups", "Polls of proxies or registries", stats.lookups),
            ("direct_bytes", "Image bytes sent straight to workers", stats.bytes_sent),
            ("relayed_bytes", "Image bytes sent through proxies", stats.bytes_relayed),
            ("spared_bytes", "Image bytes that shrinking saved", stats.bytes_spared),
        ):
            yield CounterMetricFamily(f"fingerpost_client_{name}", text, value=value)
        retries = CounterMetricFamily(
            "fingerpost_client_retries", "Attempts followed by another, by cause", labels=("cause",)
        )
        for cause, count in sorted(stats.retries.items()):
            retries.add_metric((cause,), count)
        yield retries
        yield SummaryMetricFamily(
            "fingerpost_client_snapshot_age_seconds",
            "Age of the list of workers when an image used it",
            count_value=stats.images,
            sum_value=stats.snapshot_age_s,
        )
