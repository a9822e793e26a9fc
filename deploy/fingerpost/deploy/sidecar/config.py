"""The settings of a sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.foreign import FOREIGN_KEYS, foreign_instance
from fingerpost.registry.instance import PROTOCOL_KEY, SCHEME_KEY, Instance, is_host
from fingerpost.registry.names import check_service

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SidecarConfig"]

_CHECKS: Final = "use http:/PATH, such as http:/ping, or tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig:
    """The settings of a sidecar, validated on construction.

    Attributes:
        registry: the registry's URL.
        service: the name that clients ask for.
        port: of the server.
        host: at which this process reaches the server.
        advertise: the host that clients and the registry reach; `host` if None.
        check: `http:/PATH`: a status of 200 to 299 is healthy; or `tcp`: it accepts connections.
        protocol: see `PROTOCOLS`.
        meta: metadata of the worker; see `FOREIGN_KEYS`.
        image: the file of a real image that the server must answer before it is registered; None
            uses one that is drawn.
        asks_image: whether the server must answer an image at all; a server of something else than
            images must not.
        front: the port at which this process stands in front of the server, so that it counts the
            requests; 0 picks a free one. None: clients connect to the server.
        load: where the server's own load is read: `v2`, or `/PATH#METRIC` of Prometheus' text.
        load_port: the port at which this process answers load reports with `load`; 0 picks one.
        slots: how many requests the server works on at once, for the load report. More sends it
            more, beside others.
        lease_s: seconds after the end of the registration for which requests still come, because
            clients hold answers so long. The same as that of the proxies.
        grace_s: seconds that requests in flight have to end, and then the server after SIGTERM.
        weight, zone: see `Instance`.
        registration_key: the private key that signs the registration; None does not sign.
        registry_config: access to the registry.
        command: starts the server; empty: it runs already, and is not ended.

    Raises:
        ConfigurationError, InvalidName, InvalidInstance: a value is not valid.
    """

    registry: str
    service: str
    port: int
    host: str = "127.0.0.1"
    advertise: str | None = None
    check: str = "http:/"
    protocol: str = "form"
    meta: Mapping[str, str] = field(default_factory=dict)
    image: Path | None = None
    asks_image: bool = True
    front: int | None = None
    load: str | None = None
    load_port: int = 0
    slots: int = 1
    lease_s: float = 2.0
    grace_s: float = 30.0
    weight: int = 1
    zone: str = ""
    registration_key: Path | None = None
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_service(self.service)
        if self.check != "tcp" and not self.check.startswith("http:/"):
            raise ConfigurationError(f"check={self.check!r}: {_CHECKS}")
        if not is_host(self.client_host):
            raise ConfigurationError(
                f"{self.client_host!r} cannot be given to clients: name the address by which they "
                "reach this machine with --advertise"
            )
        for key in self.meta:
            if key not in FOREIGN_KEYS | {SCHEME_KEY} or key == PROTOCOL_KEY:
                known = ", ".join(sorted(FOREIGN_KEYS - {PROTOCOL_KEY}))
                raise ConfigurationError(f"metadata {key!r} is not known: use {known}")
        if self.load is not None and self.front is not None:
            raise ConfigurationError("front and load were given: in front, requests are counted")
        if self.load not in (None, "v2") and not str(self.load).startswith("/"):
            raise ConfigurationError(f"load={self.load!r}: use v2 or /PATH#METRIC")
        if self.slots < 1:
            raise ConfigurationError(f"slots={self.slots}: use 1 or more")
        for name in ("lease_s", "grace_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name}={getattr(self, name)}: use 0 or more seconds")
        self.instance(self.port)

    @property
    def client_host(self) -> str:
        """The host that clients are given."""
        return self.advertise or self.host

    @property
    def check_path(self) -> str:
        """The path of the health check; empty for one by connecting."""
        return self.check.removeprefix("http:") if self.check != "tcp" else ""

    def instance(self, port: int, *, load_port: int = 0, nonce: str = "0") -> Instance:
        """What is registered.

        Args:
            port: that clients connect to.
            load_port: of load reports; 0 where there are none.
            nonce: makes the id unique for every process.
        """
        made = foreign_instance(
            self.service,
            host=self.client_host,
            port=port,
            meta={**self.meta, PROTOCOL_KEY: self.protocol},
            weight=self.weight,
        )
        ports = {"http": port} | ({"load": load_port} if load_port else {})
        return Instance(
            id=f"{made.id}-{nonce}",
            service=made.service,
            host=made.host,
            ports=ports,
            models=made.models,
            weight=made.weight,
            zone=self.zone,
            meta=made.meta,
        )

    def access(self) -> RegistryConfig:
        """How the registry is used: with this server's check instead of a worker's."""
        path = self.check_path
        check = CheckConfig(path=path) if path else CheckConfig(mode="ttl")
        return replace(self.registry_config, check=check)
