"""The metrics of who asks, who is refused, and what is written about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from fingerpost.security.callers.refusal import Refusal

__all__ = ["AccessMetrics"]


class AccessMetrics:
    """Counters with labels of fixed sets; what a caller sends is never one.

    Args:
        registry: of the server.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refusals = Counter(
            "fingerpost_refusals", "Requests refused, by cause", ["reason"], registry=registry
        )
        self._events = Counter(
            "fingerpost_audit_events", "Orders and refusals, by result", ["result"],
            registry=registry,
        )  # fmt: skip
        self.audit_dropped = Counter(
            "fingerpost_audit_dropped", "Lines of the audit log that could not be written",
            registry=registry,
        )  # fmt: skip
        self.policy_callers = Gauge(
            "fingerpost_policy_callers", "Callers in the policy in use", registry=registry
        )
        self.policy_broken = Gauge(
            "fingerpost_policy_broken",
            "1 while the policy file cannot be used, and the last good one is",
            registry=registry,
        )
        self.issuers_failing = Gauge(
            "fingerpost_policy_issuers_failing",
            "Issuers of tokens whose keys cannot be fetched now",
            registry=registry,
        )

    def refused(self, reason: Refusal) -> None:
        """Count a refusal."""
        self._refusals.labels(reason.value).inc()
        self._events.labels("refused").inc()

    def ordered(self, result: str) -> None:
        """Count an order that was `done` or `failed`."""
        self._events.labels(result).inc()
