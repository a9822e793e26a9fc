"""What a proxy counts, as Prometheus metrics with units in their names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

if TYPE_CHECKING:
    from fingerpost.proxy.directory import Directory

__all__ = ["ProxyMetrics"]


class ProxyMetrics:
    """One proxy's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        lookups = Counter(
            "fingerpost_proxy_lookups",
            "Answers to 'where?', by kind and outcome",
            ["kind", "outcome"],
            registry=self._registry,
        )
        # Children made once: looking them up by label would cost more than the lookup itself.
        self.addresses = lookups.labels("address", "ok")
        self.resolves = lookups.labels("resolve", "ok")
        self.redirects = lookups.labels("redirect", "ok")
        self.failures = {
            kind: lookups.labels(kind, "error") for kind in ("address", "resolve", "redirect")
        }
        self.body_bytes = Counter(
            "fingerpost_proxy_body_bytes",
            "Image bytes that reached this proxy instead of going straight to a worker",
            registry=self._registry,
        )
        self.relayed_bytes = Counter(
            "fingerpost_proxy_relayed_bytes",
            "Image bytes carried through to workers by the relay",
            registry=self._registry,
        )
        self.relayed = Counter(
            "fingerpost_proxy_relayed_requests",
            "Requests carried by the relay, by HTTP status",
            ["status"],
            registry=self._registry,
        )
        self.waiting = self._gauge("waiting_lookups", "Lookups held until something changes")
        self._instances = self._gauge("instances", "Healthy workers", "service")
        self._age = self._gauge("snapshot_age_seconds", "Since the registry's last word", "service")
        self._retained = self._gauge(
            "retained_instances", "In use on their own word alone", "service"
        )
        self._polls = self._counter("watch_polls", "Polls of the registry", "service")
        self._errors = self._counter("watch_errors", "Failed polls of the registry", "service")
        self._changes = self._counter("watch_changes", "Snapshots that differed", "service")
        self._suspicions = self._counter("watch_suspicions", "Lists that were doubted", "service")
        self._probes = self._counter("watch_probes", "Workers asked because of a doubt", "service")
        self._refused = self._counter("rejected_entries", "Entries left out", "reason")
        self._counted: dict[tuple[Counter, str], int] = {}

    def render(self, directory: Directory) -> bytes:
        """The text that Prometheus scrapes."""
        now = time.monotonic()
        for service, watch in directory.watches().items():
            self._count(self._polls, service, watch.polls)
            self._count(self._errors, service, watch.errors)
            self._count(self._changes, service, watch.changes)
            self._count(self._suspicions, service, watch.suspicions)
            self._count(self._probes, service, watch.probes)
            if watch.view is not None:
                self._instances.labels(service).set(len(watch.view.instances))
                self._retained.labels(service).set(len(watch.view.retained))
                self._age.labels(service).set(watch.view.age_s(now))
        for reason, count in directory.rejected_entries.by_reason.items():
            self._count(self._refused, reason.value, count)
        return generate_latest(self._registry)

    def _count(self, counter: Counter, label: str, value: int) -> None:
        """Bring a counter up to what was counted elsewhere."""
        before = self._counted.get((counter, label), 0)
        # A watch that was ended and begun anew counts from 0 again.
        counter.labels(label).inc(value - before if value >= before else value)
        self._counted[counter, label] = value

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"fingerpost_proxy_{name}", text, [label], registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fingerpost_proxy_{name}", text, labels, registry=self._registry)
