"""The embedded registry's audit log: who registered and removed what, and who was refused.

There is no access control, so nobody has a name here; the log has the address that asked, and its
certificate where one is asked for. Checks and reads are not orders, and are not written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from fingerpost.registry.access.callers import Callers
from fingerpost.registry.access.config import CallersConfig
from fingerpost.registry.access.metrics import AccessMetrics
from fingerpost.security.caller import ANYBODY
from fingerpost.security.callers.refusal import Refusal
from fingerpost.security.tls import peer_certificate

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from fingerpost.registry.http.app import Handler

__all__ = ["REGISTERED", "RegistryAudit"]

# The id of a registration, which stands in its body: the handler that reads it says so.
REGISTERED: Final = web.RequestKey("fingerpost.registered", str)

_ORDER: Final = re.compile(
    r"/v1/agent/service/(register|deregister|maintenance)(?:/(.+))?", re.DOTALL
)


class RegistryAudit:
    """Writes down orders and refusals; `middleware` goes before all others.

    Args:
        target: the log's file; None counts only.
        metrics: of the registry's server.
    """

    def __init__(self, target: str | None, metrics: CollectorRegistry) -> None:
        self._config = CallersConfig(audit_log=target)
        self._metrics = AccessMetrics(metrics)
        self._callers = Callers(CallersConfig(), self._metrics)

    async def start(self) -> None:
        """Begin to write. Raises `ConfigurationError` where the file cannot be opened."""
        self._callers = await Callers(self._config, self._metrics).__aenter__()

    async def aclose(self) -> None:
        """Write what is waiting."""
        await self._callers.__aexit__()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Call the handler, and write down what it did."""
        response = await handler(request)
        if response.status == 403:
            detail = "a web page, or a name that is not of this server"
            self._callers.refused(request, Refusal.ORIGIN, detail, log=False)
        order = _ORDER.fullmatch(request.path) if request.method == "PUT" else None
        if order is not None and response.status != 403:
            action, id_ = order[1], order[2] or request.get(REGISTERED, "")
            if action == "maintenance":
                action += " on" if request.query.get("enable") == "true" else " off"
            if response.status == 200:
                self._callers.ordered(request, ANYBODY, action, id_, "done", _shown(request))
            else:
                detail = ", ".join(filter(None, (f"HTTP {response.status}", _shown(request))))
                self._callers.ordered(request, ANYBODY, action, id_, "failed", detail)
        return response


def _shown(request: web.Request) -> str:
    """The certificate that whoever asked has shown, where certificates are asked for."""
    found = peer_certificate(request.transport)
    if found is None:
        return ""
    return f"certificate of {', '.join(found.spiffe_ids) or found.subject}"
