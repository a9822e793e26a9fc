"""Which tenant and class a request is of, and how many requests of each are in flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from fingerpost.client.wire import CLASS_HEADER
from fingerpost.registry.http.request import PlainRequest
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow, Flows
from fingerpost.worker.engine.fairness.limits import TenantLimits

if TYPE_CHECKING:
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.security.grant import Grant
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["Tenancy", "flow_of"]

_FLOW: Final = web.RequestKey("fingerpost.flow", Flow)
# For how long after its last request a class is still in load reports.
_CLASSES_S: Final = 30.0


class Tenancy:
    """Tells the requests of a process apart by tenant and class; one for all models.

    Requests without a lease and without a class cost nothing here.

    Attributes:
        limits: of the tenants.
        names: of the classes, the one that goes first before the others.
    """

    def __init__(self, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        classes = config.batching.classes
        self._flows = Flows(classes)
        self._metrics = metrics
        self.limits = TenantLimits(config.requests.max_in_flight)
        self.names = self._flows.names
        self._in_flight = [0] * len(classes)
        self._seen_at = float("-inf")

    def flow(self, request: RequestHead, grant: Grant) -> Flow:
        """The flow of a request.

        Raises:
            InvalidRequest, Forbidden: see `Flows.key`.
        """
        memo = request.memo if isinstance(request, PlainRequest) else {}
        found: tuple[Grant, tuple[str, int] | None] | None = memo.get(self)
        if found is None or found[0] is not grant:
            name = request.headers.get(CLASS_HEADER)
            plain = name is None and grant is NO_LIMITS
            found = memo[self] = grant, None if plain else self._flows.key(grant, name)
        key = found[1]
        if key is None:
            return DEFAULT_FLOW
        flow = request[_FLOW] = self._flows.at(key, grant)
        return flow

    def enter(self, grant: Grant, flow: Flow, body_bytes: int, *, checked: bool = False) -> None:
        """Let a request in that is not of the default flow; `leave` when it has ended.

        Args:
            checked: it has waited until the limits allowed it.

        Raises:
            Overloaded: see `TenantLimits.enter`.
        """
        now = time.monotonic()
        if grant is not NO_LIMITS:
            self.limits.enter(grant, body_bytes, now, checked=checked)
        self._in_flight[flow.rank] += 1
        if flow.rank:
            self._seen_at = now

    def leave(self, grant: Grant, flow: Flow, images: int, body_bytes: int) -> None:
        """Note that a request of `enter` has ended; see `TenantLimits.leave`."""
        if grant is not NO_LIMITS:
            self.limits.leave(grant, images - 1, body_bytes)
        self._in_flight[flow.rank] -= 1
        self._metrics.tenants.answered(flow.tenant, self.names[flow.rank], images)

    def in_flight(self, rif: int) -> list[int] | None:
        """The requests in flight of each class; None while there was only the first one lately.

        Args:
            rif: the requests in flight of all classes.
        """
        if not any(self._in_flight[1:]) and time.monotonic() - self._seen_at > _CLASSES_S:
            return None
        later = self._in_flight[1:]
        return [max(0, rif - sum(later)), *later]

    def refused(self, request: RequestHead, limit: str) -> None:
        """Count a refusal for overload."""
        flow = flow_of(request)
        if flow is not DEFAULT_FLOW:
            name = self.names[flow.rank]
            self._metrics.tenants.refused(flow.tenant, name, limit)


def flow_of(request: RequestHead) -> Flow:
    """The flow that was found for a request."""
    found: Flow = request.get(_FLOW, DEFAULT_FLOW)
    return found
