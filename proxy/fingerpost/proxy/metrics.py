"""The Prometheus metrics of a proxy, with units in their names."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from fingerpost.basics.supervision import UNEXPECTED_ERRORS
from fingerpost.proxy.xds_metrics import XdsMetrics
from fingerpost.registry.access.metrics import AccessMetrics
from fingerpost.registry.process_metrics import add_process_metrics

if TYPE_CHECKING:
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.holds import StartHolds
    from fingerpost.security.tls import ServerTls

__all__ = ["ProxyMetrics"]


class ProxyMetrics:
    """The metrics of one proxy, in a Prometheus registry of their own.

    Args:
        tls: the certificate that the proxy serves with.
    """

    def __init__(self, tls: ServerTls | None = None) -> None:
        self.registry = CollectorRegistry()
        add_process_metrics(self.registry, tls)
        self.access = AccessMetrics(self.registry)
        lookups = Counter(
            "fingerpost_proxy_lookups",
            "Lookups answered, by kind and outcome",
            ["kind", "outcome"],
            registry=self.registry,
        )
        # Labelled once here: to do that for each lookup would cost more than the lookup itself.
        self.addresses = lookups.labels("address", "ok")
        self.resolves = lookups.labels("resolve", "ok")
        self.redirects = lookups.labels("redirect", "ok")
        self.failures = {
            kind: lookups.labels(kind, "error") for kind in ("address", "resolve", "redirect")
        }
        self.body_bytes = Counter(
            "fingerpost_proxy_body_bytes",
            "Image bytes that clients sent to this proxy instead of straight to a worker",
            registry=self.registry,
        )
        self.relayed_bytes = Counter(
            "fingerpost_proxy_relayed_bytes",
            "Image bytes that the relay sent on to workers",
            registry=self.registry,
        )
        self.relayed = Counter(
            "fingerpost_proxy_relayed_requests",
            "Requests that the relay sent on, by HTTP status of the answer",
            ["status"],
            registry=self.registry,
        )
        self.xds = XdsMetrics(self.registry)
        self.waiting = self._gauge(
            "waiting_lookups", "Blocking queries held until their service changes"
        )
        self._held = self._gauge(
            "held_lookups", "Lookups held until the first worker of their model is up", "service"
        )
        self._on_demand = self._gauge(
            "starts_on_demand", "1 for a model that may have no worker (--expect)", "service"
        )
        self._held_refused = Counter(
            "fingerpost_proxy_refused_holds",
            "Lookups of a model without a worker that were refused, as too many were held",
            registry=self.registry,
        )
        self._ready = self._gauge(
            "ready", "1 once the list of services and the workers of each are known"
        )
        self._instances = self._gauge("instances", "Healthy workers", "service")
        self._foreign = self._gauge(
            "foreign_instances", "Healthy workers that are not Fingerpost's", "service"
        )
        self._failing = self._gauge(
            "failing_instances",
            "Workers that the registry lists, and whose check fails without a drain",
            "service",
        )
        self._rejected = self._gauge(
            "rejected_instances", "Entries of the registry that are not used now", "service"
        )
        self._age = self._gauge(
            "snapshot_age_seconds", "Since the registry last confirmed the snapshot", "service"
        )
        self._retained = self._gauge(
            "retained_instances",
            "Instances in use that the registry no longer lists but that still answer",
            "service",
        )
        self._polls = self._counter("watch_polls", "Polls of the registry", "service")
        self._errors = self._counter("watch_errors", "Failed polls of the registry", "service")
        self._changes = self._counter(
            "watch_changes", "Polls that brought a different snapshot", "service"
        )
        self._suspicions = self._counter(
            "watch_suspicions", "Lists that lost suspiciously many workers at once", "service"
        )
        self._probes = self._counter(
            "watch_probes", "Workers asked directly because of such a list", "service"
        )
        self._refused = self._counter(
            "rejected_entries", "Entries of the registry that are not used", "reason"
        )
        self._unexpected = self._counter(
            "unexpected_errors", "Exceptions that a background task survived", "task"
        )
        self._by_service: tuple[Counter | Gauge, ...] = (
            self._held,
            self._on_demand,
            self._instances,
            self._foreign,
            self._failing,
            self._rejected,
            self._age,
            self._retained,
            self._polls,
            self._errors,
            self._changes,
            self._suspicions,
            self._probes,
        )
        self._refusals = 0
        self._services: set[str] = set()
        self._counted: dict[tuple[Counter, str], int] = {}

    def render(self, directory: Directory, holds: StartHolds) -> bytes:
        """The metrics in Prometheus' text format."""
        now = time.monotonic()
        self._remove_forgotten(directory)
        self._ready.set(directory.ready)
        self._held_refused.inc(holds.refused - self._refusals)
        self._refusals = holds.refused
        for service, watch in directory.watches().items():
            self._held.labels(service).set(holds.held.get(service, 0))
            self._on_demand.labels(service).set(holds.starts_on_demand(service))
            self._count(self._polls, service, watch.polls)
            self._count(self._errors, service, watch.errors)
            self._count(self._changes, service, watch.changes)
            self._count(self._suspicions, service, watch.suspicions)
            self._count(self._probes, service, watch.probes)
            if watch.view is not None:
                self._instances.labels(service).set(len(watch.view.instances))
                self._foreign.labels(service).set(sum(e.foreign for e in watch.view.instances))
                self._failing.labels(service).set(len(watch.view.failing))
                self._rejected.labels(service).set(len(watch.view.rejected))
                self._retained.labels(service).set(len(watch.view.retained))
                self._age.labels(service).set(watch.view.age_s(now))
        for reason, count in directory.rejected_entries.by_reason.items():
            self._count(self._refused, reason.value, count)
        for kind, count in UNEXPECTED_ERRORS.items():
            self._count(self._unexpected, kind, count)
        return generate_latest(self.registry)

    def _remove_forgotten(self, directory: Directory) -> None:
        """Remove the series of services that are not known any more."""
        known = directory.watches().keys()
        for service in self._services - known:
            for metric in self._by_service:
                with contextlib.suppress(KeyError):  # it had no snapshot
                    metric.remove(service)
        self._services = set(known)
        self._counted = {
            (counter, label): value
            for (counter, label), value in self._counted.items()
            if counter not in self._by_service or label in known
        }

    def _count(self, counter: Counter, label: str, value: int) -> None:
        """Raise a counter to the value that was counted elsewhere."""
        before = self._counted.get((counter, label), 0)
        # A watch that was restarted counts from 0 again.
        counter.labels(label).inc(value - before if value >= before else value)
        self._counted[counter, label] = value

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"fingerpost_proxy_{name}", text, [label], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fingerpost_proxy_{name}", text, labels, registry=self.registry)
