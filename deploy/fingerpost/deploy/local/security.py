"""Who may do what in a local cluster: the options that its processes get for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fingerpost.deploy.options.registry import registry_arguments
from fingerpost.deploy.options.tls import server_tls_arguments
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.security.tls import TlsConfig

__all__ = ["ClusterSecurity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSecurity:
    """The security options of `fingerpost up`, validated on construction.

    Attributes:
        embedded: whether the registry is the embedded one, which is then protected likewise.
        tls: the certificate of all processes, and the authorities that they believe.
        registry_config: access to the registry. Beside an embedded one with TLS, its authority and
            certificate are by default those of `tls`.
        callers: the policy file of proxy and workers.
        audit_log: one file for the orders and refusals of all processes.
        lease_key: the proxy's key for leases; workers then require one.
        lease_bind: bind leases to the certificates of clients.
        registration_key: the workers' key for their registrations.

    Raises:
        ConfigurationError: a certificate without authorities, or `lease_bind` without leases or
            without certificates of clients.
    """

    embedded: bool = True
    tls: TlsConfig | None = None
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    callers: str | None = None
    audit_log: str | None = None
    lease_key: Path | None = None
    lease_bind: bool = False
    registration_key: Path | None = None

    def __post_init__(self) -> None:
        tls = self.tls
        if tls is not None and (tls.cert is None or tls.ca is None):
            raise ConfigurationError(
                "the processes of `fingerpost up` talk to each other by TLS: give their "
                "certificate (--tls-cert, --tls-key) and the authority that signed it (--tls-ca)"
            )
        if self.lease_bind and (self.lease_key is None or tls is None or tls.client_ca is None):
            raise ConfigurationError(
                "--lease-bind binds leases to clients' certificates: give --lease-key, and ask "
                "for certificates by --tls-client-ca"
            )

    @property
    def access(self) -> RegistryConfig:
        """Access to the registry, for all processes."""
        config, tls = self.registry_config, self.tls
        if not self.embedded or tls is None or config.ca_file is not None:
            return config
        return dataclasses.replace(config, ca_file=tls.ca, cert_file=tls.cert, key_file=tls.key)

    @property
    def registry_options(self) -> list[str]:
        """For `fingerpost registry`."""
        return [
            *server_tls_arguments(self.tls, asks_workers=True),
            *_given("--audit-log", self.audit_log),
        ]

    @property
    def proxy_options(self) -> list[str]:
        """For `fingerpost proxy`."""
        return [
            *server_tls_arguments(self.tls, asks_workers=True),
            *registry_arguments(self.access),
            *self._callers,
            *_given("--lease-key", self.lease_key),
            *(["--lease-bind"] if self.lease_bind else []),
        ]

    @property
    def worker_options(self) -> list[str]:
        """For `fingerpost worker`."""
        return [
            *server_tls_arguments(self.tls, asks_workers=False),
            *registry_arguments(self.access),
            *self._callers,
            *(["--require-lease"] if self.lease_key is not None else []),
            *_given("--registration-key", self.registration_key),
        ]

    @property
    def _callers(self) -> list[str]:
        return [*_given("--callers", self.callers), *_given("--audit-log", self.audit_log)]


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [f"{option}={value}"]
