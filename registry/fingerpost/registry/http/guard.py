"""Counts the connections of a server, and refuses what exceeds its limits."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.remote_network import remote_network
from fingerpost.errors import Overloaded
from fingerpost.registry.http.descriptors import descriptor_limit
from fingerpost.registry.http.refusals import REFUSED_CONNECTIONS

if TYPE_CHECKING:
    from fingerpost.registry.http.connection_config import ConnectionConfig

__all__ = ["REFUSAL", "ConnectionGuard"]

logger = logging.getLogger(__name__)


class ConnectionGuard:
    """Counts the connections of one server, and refuses what exceeds the limits.

    Attributes:
        config: the limits.
        open: connections open now.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config
        self._most = config.max_connections or max(16, descriptor_limit() * 3 // 4)
        per_client = config.max_per_client
        self._most_per_client = max(8, self._most // 2) if per_client is None else per_client
        self._clients: Counter[str] = Counter()
        self._log = LogLimit()
        self.open = 0

    def enter(self, client: str) -> bool:
        """Count a connection of a client's address; False if it must be refused."""
        network = remote_network(client)
        if self.open >= self._most:
            why = f"{self.open} are open, the most there may be"
            self._refuse(client, "max_connections", why)
            return False
        if self._most_per_client and client:
            if self._clients[network] >= self._most_per_client:
                why = f"{network} has {self._most_per_client}, the most of one address or IPv6 /64"
                self._refuse(client, "max_per_client", why)
                return False
            self._clients[network] += 1
        self.open += 1
        return True

    def leave(self, client: str) -> None:
        """Count one connection less."""
        self.open -= 1
        if self._most_per_client and client:
            network = remote_network(client)
            self._clients[network] -= 1
            if not self._clients[network]:
                del self._clients[network]

    def _refuse(self, client: str, reason: str, why: str) -> None:
        REFUSED_CONNECTIONS[reason] += 1
        if count := self._log.count(time.monotonic()):
            logger.warning("refused %d connections, the last from %s: %s", count, client, why)


def _refusal() -> bytes:
    error = Overloaded(
        "too many connections are open here: use another server, or try again in a second",
        retry_after_s=1.0,
    )
    body = error.to_json()
    return (
        b"HTTP/1.1 %d Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: %d\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (error.status, math.ceil(error.retry_after_s or 1), len(body), body)
    )


# What a refused connection gets.
REFUSAL: Final = _refusal()
