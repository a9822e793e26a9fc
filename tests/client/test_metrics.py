"""A client's counters as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from tests.support.optional import not_none

from fingerpost.client.metrics import ClientMetrics


async def test_what_a_client_did_is_told(cluster):
    gone, good = await cluster.workers("gone", "good")
    client = await cluster.client(gone, good)
    registry = CollectorRegistry()
    registry.register(ClientMetrics(client))
    await gone.server.stop()
    while not client.stats.retries:
        await client.classify(b"12345", "digits")
    images = client.stats.images

    def value(name, **labels):
        return registry.get_sample_value(f"fingerpost_client_{name}", labels)

    assert value("attempts_total") == images + 1
    assert value("retries_total", cause="unreachable") == 1
    client.stats.unresponsive = 3
    for name in ("unresponsive_workers_total", "silences_total"):  # the old name, for a release
        assert value(name) == 3
    assert value("stale_addresses_total") == 1
    assert value("ejections_total") == 1
    assert value("hedges_total") == 0
    assert value("direct_bytes_total") == 5 * images
    assert value("relayed_bytes_total") == 0
    assert value("spared_bytes_total") == 0
    assert not_none(value("lookups_total")) <= 2
    assert value("snapshot_age_seconds_count") == images
    assert 0 <= not_none(value("snapshot_age_seconds_sum")) < 10 * images
