"""The settings of one proxy process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fingerpost.basics.renames import renamed_fields
from fingerpost.errors import ConfigurationError
from fingerpost.proxy.xds_config import XdsConfig
from fingerpost.registry.access.config import CallersConfig
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.cors_config import CorsConfig
from fingerpost.registry.names import check_service
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ProxyConfig", "ProxyLeasesConfig"]

_MAX_HOLD_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLeasesConfig:
    """What a proxy signs.

    Attributes:
        key_file: the private key (JWK or PEM, mode 0600), read again when it changes. None, the
            default, signs nothing: workers with `--require-lease` then refuse this proxy's clients.
        signing: how long leases last; see `LeaseConfig`.
        bind: bind leases, also those in URLs, to the certificate that the client has shown. Off by
            default, as workers then have to be asked with the same one, over TLS.

    Raises:
        ConfigurationError: another setting than the default has no effect without a key.
    """

    key_file: Path | None = None
    signing: LeaseConfig = field(default_factory=LeaseConfig)
    bind: bool = False

    def __post_init__(self) -> None:
        if self.key_file is not None:
            return
        usual = LeaseConfig(cluster=self.signing.cluster)
        if self.bind or self.signing != usual:
            name = "bind" if self.bind else "signing"
            raise ConfigurationError(
                f"leases.{name} has an effect only with leases.key_file, without which no lease is "
                "signed: give --lease-key too, or leave out --lease-bind, --lease-life and "
                "--url-life"
            )


@renamed_fields(
    access="registry_config",
    service="default_service",
    first_snapshot_s="first_snapshot_timeout_s",
    max_waiting="max_blocking_queries",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """One proxy's settings, validated on construction.

    Attributes:
        registry: the registry's URL, such as `http://127.0.0.1:12481`.
        registry_config: credentials and TLS for that registry, its datacenters, and which
            addresses of workers are accepted.
        host: address to listen on; by default loopback, so that nothing is open by accident.
        port: port to listen on; 0 picks a free one. The default, 12480, is the one that clients
            and commands ask without an option.
        connections: which connections are refused or closed.
        cors: which web pages may use this proxy from their scripts; by default none.
        tls: with a certificate, this proxy speaks TLS; with `ca`, it names and relays to only
            workers that have a certificate of that authority; see `TlsConfig`.
        default_service: the service that `GET /` answers for. None, the default, is the only
            service there is; with several, `GET /` is then an error.
        relay: whether `POST /v1/relay/...` carries images through this proxy, for clients that
            cannot reach the workers. Off by default: images through a proxy are what Fingerpost
            avoids.
        response_timeout_s: seconds after which a worker that has not answered a relayed image is
            asked whether it is at work, and is given up if it does not say so. More waits longer
            for workers that hang; 10 s is what clients wait that ask workers themselves.
        body_timeout_s: longest pause between two pieces of a body that is relayed, in seconds; a
            stalled upload is closed. More lets slow clients hold more connections to workers; 10 s
            is what workers allow, too.
        min_upload_rate: fewest bytes of such a body in a second, on average of each 20 s; a slower
            upload is closed. 0 means no limit; 500 is what workers allow, too.
        lease_s: seconds that a client may use an answer without asking again. A draining worker
            accepts requests for as long, so more makes draining slower; less makes plain clients
            ask more often. With 2 s, a rolling restart waits 2 s for each worker.
        first_snapshot_timeout_s: seconds that a lookup waits for the first snapshot after the
            start, before it fails. More hides a slower registry; less tells clients sooner to ask
            another proxy. The default is far longer than a healthy registry takes.
        forget_after_s: seconds that a service stays known after its last worker left and the
            registry listed it last; its clients get "no worker, try again" meanwhile, and "no such
            service" afterwards. More bridges longer restarts; less frees its watch and its metrics
            sooner.
            The default is longer than a large model takes to load. A new service that would find
            all watches in use takes the place of a vanished one at once.
        hold_for_start_s: seconds for which a lookup of a known service without a worker is held
            until its first worker is up. More lets slower workers start; less tells clients sooner
            to go elsewhere. The default, 0, holds none, as a model without a worker is a fault
            where nothing starts workers on demand.
        expected: services that may have no worker: they are known from the start, and are never
            forgotten. None by default: a service is known once a worker of it has registered.
        max_held: most lookups held for a start at once; further ones get 503. Each costs a
            connection and 20 KB.
        max_blocking_queries: most lookups held (`index=`, `wait=`) at once; further ones get 429.
            Each costs a connection and 20 KB, so the default costs up to 200 MB.
        max_wait_s: longest time that a lookup is held, in seconds; a longer `wait=` is cut to it.
            More saves requests, less frees connections of dead clients sooner. The default is the
            longest wait that Consul allows.
        probe_interval_s: seconds between two load probes of one worker; 0 turns probing off. Less
            gives fresher load reports and finds dead workers sooner, for more requests to each
            worker. The default finds them as fast as Consul's own check, which runs once a second.
        leases: which leases it signs; by default none.
        callers: who may ask, and where refusals are written down.
        xds: whether clients of gRPC, and Envoys, find workers by themselves here; by default not.
        max_probes_per_s: most probes a second of all workers together; beyond, each worker is
            probed less often. More costs this proxy and the network more; the default probes 200
            workers once a second.
    """

    registry: str
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    host: str = "127.0.0.1"
    port: int = 12480
    connections: ConnectionConfig = field(default_factory=ConnectionConfig)
    cors: CorsConfig = field(default_factory=CorsConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    default_service: str | None = None
    relay: bool = False
    response_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    min_upload_rate: float = 500.0
    lease_s: float = 2.0
    first_snapshot_timeout_s: float = 2.0
    forget_after_s: float = 300.0
    hold_for_start_s: float = 0.0
    expected: tuple[str, ...] = ()
    max_held: int = 1000
    max_blocking_queries: int = 10_000
    max_wait_s: float = 600.0
    probe_interval_s: float = 1.0
    max_probes_per_s: float = 200.0
    callers: CallersConfig = field(default_factory=CallersConfig)
    leases: ProxyLeasesConfig = field(default_factory=ProxyLeasesConfig)
    xds: XdsConfig = field(default_factory=XdsConfig)

    @property
    def reading(self) -> RegistryConfig:
        """How the registry is read: without unnamed foreign workers where callers are checked."""
        access = self.registry_config
        guarded = self.leases.key_file is not None or self.callers.policy is not None
        if access.foreign_services is None and guarded:
            return replace(access, foreign_services=())
        return access

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}: give 0 to 65535 (0 picks a free one)")
        if self.leases.bind and self.tls.client_ca is None:
            raise ConfigurationError(
                "leases.bind has an effect only where clients show certificates: give "
                "--tls-client-ca too, or leave out --lease-bind"
            )
        if self.default_service is not None:
            check_service(self.default_service)
        for service in self.expected:
            check_service(service)
        if self.hold_for_start_s > _MAX_HOLD_S:
            raise ConfigurationError(
                f"hold_for_start_s is {self.hold_for_start_s:g}: give {_MAX_HOLD_S:g} s at most, "
                "as connections on which nothing comes are cut on their way"
            )
        for name in (
            "hold_for_start_s",
            "max_held",
            "lease_s",
            "first_snapshot_timeout_s",
            "forget_after_s",
            "max_blocking_queries",
            "max_wait_s",
            "probe_interval_s",
            "min_upload_rate",
        ):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give 0 or more")
        for name in ("response_timeout_s", "body_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: give more than 0")
        if self.max_probes_per_s <= 0:
            raise ConfigurationError(
                f"max_probes_per_s is {self.max_probes_per_s}: give more than 0 "
                "(probe_interval_s=0 turns probing off)"
            )
