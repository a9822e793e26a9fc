"""How one proxy process behaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.names import check_service
from fingerpost.registry.renames import renamed_fields

__all__ = ["ProxyConfig"]


@renamed_fields(access="registry_config")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """One proxy's settings, validated on construction.

    Attributes:
        registry: the registry's URL, such as `http://127.0.0.1:12481`.
        registry_config: how to be let in there, and in which datacenters to look.
        host: address to listen on; loopback by default, so that nothing is open by accident.
        port: port to listen on; 0 lets the system pick one.
        service: the service that `GET /` answers for; by default the only one there is.
        relay: whether `POST /v1/relay/...` carries images through this proxy, for clients that
            cannot reach the workers. Off by default: it is what Fingerpost exists to avoid.
        lease_s: how long a client may use an answer without asking again. A draining worker
            accepts for as long; more makes draining slower, less makes plain clients ask oftener.
        first_snapshot_s: how long a lookup waits for the first snapshot after the start.
        max_waiting: most held lookups (`wait=`) at once; each costs a connection and 20 KB.
        max_wait_s: longest hold; longer wishes are cut to it (Consul's limit is the same).
        probe_interval_s: pause between two load probes of one worker; 0 turns probing off. Less
            gives fresher load reports, for more requests to every worker.
        max_probes_per_s: bound on all probes together; large fleets are probed less often.
    """

    registry: str
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    host: str = "127.0.0.1"
    port: int = 12480
    service: str | None = None
    relay: bool = False
    lease_s: float = 2.0
    first_snapshot_s: float = 2.0
    max_waiting: int = 10_000
    max_wait_s: float = 600.0
    probe_interval_s: float = 1.0
    max_probes_per_s: float = 200.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port} is not in 0..65535 (0 picks a free one)")
        if self.service is not None:
            check_service(self.service)
        for name in (
            "lease_s",
            "first_snapshot_s",
            "max_waiting",
            "max_wait_s",
            "probe_interval_s",
        ):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if self.max_probes_per_s <= 0:
            raise ConfigurationError(
                f"max_probes_per_s is {self.max_probes_per_s}: it must be above 0"
            )
