"""Settings of a registry beyond its URL: credentials, TLS, datacenters, checks. Pure: no file I/O.

`open_registry` reads the files named here. The environment is read by the command line only, which
passes the values on.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final, Literal

from fingerpost.errors import ConfigurationError
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.instance import is_host
from fingerpost.registry.names import check_service

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig

__all__ = ["CheckConfig", "RegistryConfig", "check_token"]

# Consul's own rule for the name of a datacenter; that of a namespace is the same.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# During an election the agent held heartbeats for 7 s each: checks with a TTL of 2 s and of 10 s
# turned critical meanwhile, those of 30 s did not.
_MIN_TTL_S: Final = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """The check that decides whether an instance is on the healthy list.

    Attributes:
        mode: `http`, the agent asks the worker; or `ttl`, the worker reports to the agent, for
            workers that the agent cannot reach. A killed worker is off the list after
            0.5 s (1.0 s at most) with `http`, and after up to `ttl_s` with `ttl`. A worker that
            asks clients for a certificate uses `ttl`, because an agent shows one only where it is
            configured to (`enable_agent_tls_for_checks`); `https` says that it is.
        path: the path asked on transport `http`. The default follows the engine, not just the
            process: a worker whose model hangs answers 503 there.
        interval_s: seconds between checks, at least 1. More costs fewer requests, and notices a
            dead worker later.
        timeout_s: seconds until a check counts as failed. With 0.5 s a stopped process was off the
            list after 1.4 s at most; more tolerates longer pauses of a worker.
        ttl_s: with `ttl`, seconds without a report after which the check fails, at least 30: less
            does not outlast the election of a new Consul leader. Reports are sent every third.
        deregister_after_s: seconds of failure after which the entry is removed, at least 60. More
            keeps the entry of a worker that may come back; less removes dead ones sooner.
        tls_server_name: the host name that the agent expects in the worker's certificate, where it
            has not the worker's address (`TLSServerName`, from Consul 1.10 on).

    Raises:
        ConfigurationError: a value is out of range.
    """

    mode: Literal["http", "ttl", "https"] = "http"
    path: str = "/health/engine"
    interval_s: float = 1.0
    timeout_s: float = 0.5
    ttl_s: float = _MIN_TTL_S
    deregister_after_s: float = 60.0
    tls_server_name: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("http", "ttl", "https"):
            raise ConfigurationError(f"mode={self.mode!r}: use 'http', 'https' or 'ttl'")
        if not self.path.startswith("/"):
            raise ConfigurationError(f"path={self.path!r}: use a path that starts with '/'")
        if not self.interval_s >= 1:
            raise ConfigurationError(
                f"interval_s={self.interval_s}: use 1 s or more, the least that Consul takes"
            )
        if not self.timeout_s > 0:
            raise ConfigurationError(f"timeout_s={self.timeout_s}: use a number above 0")
        if not self.deregister_after_s >= 60:
            raise ConfigurationError(
                f"deregister_after_s={self.deregister_after_s}: use 60 s or more, the least that "
                "Consul takes"
            )
        if not self.ttl_s >= _MIN_TTL_S:
            raise ConfigurationError(
                f"ttl_s={self.ttl_s:g}: use {_MIN_TTL_S:g} s or more, because a shorter one fails "
                "whenever Consul elects a leader; mode 'http' notices a dead worker sooner"
            )

    @property
    def heartbeat_s(self) -> float | None:
        """Seconds between the worker's reports; None where it sends none."""
        return self.ttl_s / 3 if self.mode == "ttl" else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RegistryConfig:
    """Settings of a registry that are not in its URL. Every field may be left out.

    Attributes:
        token: the ACL token, sent with every call; it is in no message and no `repr`. A process
            list shows arguments to everybody on the machine: prefer `token_file`.
        token_file: a file that holds the token and nothing else. It is read again when it changes,
            so that a new token needs no restart.
        ca_file: PEM file of the authorities that may sign the registry's certificate; None uses
            those of the system.
        cert_file: PEM file of the client certificate, for a registry that asks for one. It, its key
            and `ca_file` are also read again when they change; new connections use them.
        key_file: PEM file of its private key, without a pass phrase; may be `cert_file` itself.
        verify: whether to check the registry's certificate and host name. Without it, anybody on
            the network path can read the token and answer as the registry: for experiments only.
        datacenters: the datacenters to read from, in this order. The first is the agent's own,
            where instances are registered. The next one is asked while one has no healthy instance
            or fails. Empty: only the agent's own.
        namespace: the namespace of Consul Enterprise, sent with every call where given. Other
            editions refuse or ignore it.
        allow_networks: the networks of all workers, as CIDR (`10.0.0.0/8`); every address outside
            them and every host name is rejected. Empty allows all that may be a worker's address;
            see `AddressPolicy`.
        registration_keys: a file of public keys (JWKS), read again when it changes: entries that
            none of them has signed are left out. None takes unsigned ones; see `entry_signature`.
        foreign_services: the services of which foreign workers are used, which are entries without
            Fingerpost's metadata; see `foreign`. None is all of them, or none where anything proves
            who a worker is (`registration_keys`, `workers_tls.ca`; in a proxy, leases or callers).
        snapshot_folder: a folder for the last good snapshot of every service, so that a process
            that starts during an outage of the registry knows the workers. None stores none.
        check: how the registry checks an instance that is registered here; see `CheckConfig`.
        wan_address: host name or IP address at which readers in other datacenters reach what is
            registered here, where it differs from the instance's own.
        registries: of several registries, `merged` uses the instances of all, and `failover` those
            of the first that has a healthy one.
        workers_tls: how workers are asked that vanished from the registry; and how a worker asks
            itself, where the registry has no checks. `Client`, `Proxy` and `Worker` set it.

    Raises:
        ConfigurationError: a value is not valid; the message names the field and the remedy.
    """

    token: str | None = dataclasses.field(default=None, repr=False)
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    datacenters: tuple[str, ...] = ()
    namespace: str | None = None
    allow_networks: tuple[str, ...] = ()
    registration_keys: str | None = None
    foreign_services: tuple[str, ...] | None = None
    snapshot_folder: str | None = None
    check: CheckConfig = dataclasses.field(default_factory=CheckConfig)
    wan_address: str | None = None
    registries: Literal["merged", "failover"] = "merged"
    workers_tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        if self.token is not None:
            if self.token_file is not None:
                raise ConfigurationError(
                    f"token and token_file={self.token_file!r} are both given; leave one out"
                )
            check_token(self.token, "token")
        if self.cert_file is not None and self.key_file is None:
            raise ConfigurationError(
                f"cert_file={self.cert_file!r} has no key_file; name the certificate's private "
                "key, which may be in the same file"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError(
                f"key_file={self.key_file!r} has no cert_file; name the key's certificate"
            )
        if not self.verify and self.ca_file is not None:
            raise ConfigurationError(
                f"ca_file={self.ca_file!r} has no effect with verify=False; leave one of them out"
            )
        for name in self.foreign_services or ():
            check_service(name)
        if self.registries not in ("merged", "failover"):
            raise ConfigurationError(f"registries={self.registries!r}: use 'merged' or 'failover'")
        for name in self.datacenters:
            _check_name("datacenter", name)
        if len(set(self.datacenters)) != len(self.datacenters):
            raise ConfigurationError(
                f"datacenters={', '.join(self.datacenters)}: one is listed twice; list each once"
            )
        if self.namespace is not None:
            _check_name("namespace", self.namespace)
        if self.wan_address is not None and not is_host(self.wan_address):
            raise ConfigurationError(
                f"wan_address={self.wan_address!r} is neither an IP address nor a host name"
            )

    def address_policy(self, tls: TlsConfig | None = None) -> AddressPolicy:
        """Which entries are used by their address, and which foreign ones.

        Args:
            tls: how the reader asks workers.

        Raises:
            ConfigurationError: a network is not valid.
        """
        foreign = self.foreign_services
        if foreign is None and tls is not None and tls.ca is not None and not tls.allow_plain:
            foreign = ()
        return AddressPolicy.parse(self.allow_networks, foreign)

    @property
    def uses_tls(self) -> bool:
        """Whether a setting is given that has an effect only with TLS."""
        return not self.verify or self.ca_file is not None or self.cert_file is not None


def check_token(token: str, where: str, what: str = "ACL token") -> str:
    """Return `token` if it is a valid value of an HTTP header. Errors do not show it.

    Raises:
        ConfigurationError: it is empty, longer than 8 KiB, or not printable ASCII.
    """
    if not 0 < len(token) <= 8192 or not all("!" <= letter <= "~" for letter in token):
        raise ConfigurationError(
            f"{where} is not a valid {what}: use 1 to 8192 printable characters, no spaces"
        )
    return token


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what} {name!r}: use 1 to 64 letters, digits, hyphens and underscores"
        )
