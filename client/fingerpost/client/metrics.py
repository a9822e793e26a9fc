"""A client's counters as Prometheus metrics."""

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
    """A collector of a client's counters; they are read at each scrape and cost an image nothing.

    ::

        prometheus_client.REGISTRY.register(ClientMetrics(client))
    """

    def __init__(self, client: Client | SyncClient) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        """The metrics now; called by prometheus-client."""
        stats = self._client.stats
        for name, text, value in (
            ("attempts", "Requests to workers, including failed connections", stats.attempts),
            ("stale_addresses", "Attempts at known workers that refused", stats.stale_addresses),
            (
                "stale_entries",
                "Attempts at workers that are not what their entry says",
                stats.stale_entries,
            ),
            ("hedges", "Second attempts because an answer was late", stats.hedges),
            ("ejections", "Times a worker was ejected after failures", stats.ejections),
            ("probes", "Requests for load reports", stats.probes),
            ("probes_lost", "Load reports that did not arrive in time", stats.probes_lost),
            ("unresponsive_workers", "Times a worker did not answer a probe", stats.unresponsive),
            ("silences", "Old name of unresponsive_workers, until 0.3", stats.unresponsive),
            ("suspect_images", "Images on which a worker fell silent", stats.suspect_images),
            ("lookups", "Requests to proxies or registries", stats.lookups),
            ("direct_bytes", "Image bytes sent straight to workers", stats.bytes_sent),
            ("relayed_bytes", "Image bytes sent through proxies", stats.bytes_relayed),
            ("spared_bytes", "Image bytes saved by shrinking", stats.bytes_spared),
        ):
            yield CounterMetricFamily(f"fingerpost_client_{name}", text, value=value)
        retries = CounterMetricFamily(
            "fingerpost_client_retries", "Attempts followed by a retry, by cause", labels=("cause",)
        )
        for cause, count in sorted(stats.retries.items()):
            retries.add_metric((cause,), count)
        yield retries
        rejected = CounterMetricFamily(
            "fingerpost_client_rejected_entries", "Entries that are not used", labels=("reason",)
        )
        for reason, count in sorted(stats.rejected_entries.items()):
            rejected.add_metric((str(reason),), count)
        yield rejected
        yield SummaryMetricFamily(
            "fingerpost_client_snapshot_age_seconds",
            "Age of the snapshot that an image used",
            count_value=stats.images,
            sum_value=stats.snapshot_age_s,
        )
