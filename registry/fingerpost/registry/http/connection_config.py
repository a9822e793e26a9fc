"""The limits of the connections to a server."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.errors import ConfigurationError

__all__ = ["ConnectionConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """Which connections to a worker, a proxy or the embedded registry are refused or closed.

    Attributes:
        headers_timeout_s: longest time that the headers of a request take, in seconds, from their
            first byte or from the start of a new connection; then the connection is closed. More
            lets slow clients hold more connections; 10 s suits any network.
        idle_timeout_s: seconds after which a connection without a request is closed. More saves
            clients the time to connect anew; 75 s is nginx's default, too.
        max_connections: most connections at once; a further one is answered with 429 and closed.
            None, the default, is three quarters of the descriptors that the process may have, so
            that files and its own connections have the rest. Each takes some 20 KB.
        max_per_client: most connections of one address, or of one /64 of IPv6; 0 means no limit.
            None, the default, is half of `max_connections`, so that no single client keeps all
            others out. Behind a load balancer all clients have its address: use 0 there, and the
            balancer's own limit.
    """

    headers_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    max_connections: int | None = None
    max_per_client: int | None = None

    def __post_init__(self) -> None:
        for name in ("headers_timeout_s", "idle_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"connections.{name} is {getattr(self, name)}: it must be above 0"
                )
        for name, least in (("max_connections", 1), ("max_per_client", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigurationError(
                    f"connections.{name} is {value}: it must be {least} or more"
                )
