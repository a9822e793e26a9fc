"""How to reach a registry that is secured, or spread over datacenters. Pure: opens no file.

`open_registry` reads the files named here. Nothing here asks the environment: the command line
does, and passes the values on.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final, Literal

from fingerpost.errors import ConfigurationError
from fingerpost.registry.instance import is_host

__all__ = ["CheckConfig", "RegistryConfig", "check_token"]

# Consul's own rule for a datacenter's name; a namespace is named alike.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# With an election under way the agent held heartbeats for 7 s a try: checks with a TTL of 2 s and
# of 10 s turned critical in it, those of 30 s did not.
_MIN_TTL_S: Final = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """The check that decides whether an instance is on the healthy list.

    Attributes:
        mode: `http`, the agent asks the worker; or `ttl`, the worker reports to the agent, for
            workers that the agent cannot reach. A killed worker is off the list after
            0.5 s (1.0 s at most) with `http`, and after up to `ttl_s` with `ttl`.
        path: the path asked on transport `http`. The default follows the engine, not just the
            process: a worker whose model hangs answers 503 there.
        interval_s: seconds between checks, at least 1. More costs fewer requests, and notices a
            dead worker later.
        timeout_s: seconds until a check counts as failed. With 0.5 s a stopped process was off the
            list after 1.4 s at most; more tolerates longer pauses of a worker.
        ttl_s: with `ttl`, seconds without a report after which the check fails, at least 30: less
            does not outlast the election of a new Consul leader. Reports are sent every third.
        deregister_after_s: seconds of failure after which the entry is removed, at least 60. More
            keeps the entry of a worker that may come back; less clears dead ones sooner.

    Raises:
        ConfigurationError: a value is out of range.
    """

    mode: Literal["http", "ttl"] = "http"
    path: str = "/health/engine"
    interval_s: float = 1.0
    timeout_s: float = 0.5
    ttl_s: float = _MIN_TTL_S
    deregister_after_s: float = 60.0

    def __post_init__(self) -> None:
        if self.mode not in ("http", "ttl"):
            raise ConfigurationError(f"mode={self.mode!r}: use 'http' or 'ttl'")
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
    """What a registry's URL does not say. Every field may be left out.

    Attributes:
        token: ACL token, sent with every call; shown in no message and no `repr`. A process list
            shows arguments to everybody on the machine: prefer `token_file`.
        token_file: a file that holds the token and nothing else. Read again when it changes, so
            that a new token needs no restart.
        ca_file: PEM file of the authorities that may sign the registry's certificate; those of
            the system, if None.
        cert_file: PEM file of our own certificate, for a registry that asks for one. It, its key
            and `ca_file` are read again when they change, too; new connections use them.
        key_file: PEM file of its private key, without a pass phrase; may be `cert_file` itself.
        verify: check the registry's certificate and host name. Without it, whoever is on the path
            reads the token and answers as the registry: for experiments only.
        datacenters: where to read from, in this order; the first is our own, where instances are
            registered. The next is asked while one has no healthy instance or fails. Empty: only
            the agent's own.
        namespace: of Consul Enterprise; sent with every call where given. Other editions refuse
            or ignore it.
        allow_networks: where workers may be, as CIDR (`10.0.0.0/8`); every address outside is
            refused, and every host name. Empty lets in all that make sense; see `AddressPolicy`.
        snapshot_folder: where to keep the last good snapshot of every service, so that a process
            that starts while the registry is away knows the workers; nowhere, if None.
        check: how the registry watches over an instance registered here; see `CheckConfig`.
        wan_address: host name or IP address at which readers in other datacenters reach what is
            registered here, where it differs from the instance's own.

    Raises:
        ConfigurationError: on construction; the message names the field, its value and the remedy.
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
    snapshot_folder: str | None = None
    check: CheckConfig = dataclasses.field(default_factory=CheckConfig)
    wan_address: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None:
            if self.token_file is not None:
                raise ConfigurationError(
                    f"a token and token_file {self.token_file!r} are both given; leave one out"
                )
            check_token(self.token, "the token given")
        if self.cert_file is not None and self.key_file is None:
            raise ConfigurationError(
                f"cert_file {self.cert_file!r} has no key_file; name the certificate's private "
                "key, which may be in the same file"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError(
                f"key_file {self.key_file!r} has no cert_file; name the key's certificate"
            )
        if not self.verify and self.ca_file is not None:
            raise ConfigurationError(
                f"ca_file {self.ca_file!r} is of no use with verify=False; leave one of them out"
            )
        for name in self.datacenters:
            _check_name("datacenter", name)
        if len(set(self.datacenters)) != len(self.datacenters):
            raise ConfigurationError(
                f"datacenters {', '.join(self.datacenters)}: one is named twice; name each once"
            )
        if self.namespace is not None:
            _check_name("namespace", self.namespace)
        if self.wan_address is not None and not is_host(self.wan_address):
            raise ConfigurationError(
                f"wan_address {self.wan_address!r} is neither an IP address nor a host name"
            )

    @property
    def uses_tls(self) -> bool:
        """Whether an option is given that means something over TLS only."""
        return not self.verify or self.ca_file is not None or self.cert_file is not None


def check_token(token: str, where: str) -> str:
    """Return `token` if it can travel in an HTTP header. Never shows it.

    Raises:
        ConfigurationError: it is empty, longer than 8 KiB, or not printable ASCII.
    """
    if not 0 < len(token) <= 8192 or not all("!" <= letter <= "~" for letter in token):
        raise ConfigurationError(
            f"{where} is no ACL token: expected 1 to 8192 printable characters without spaces"
        )
    return token


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what} {name!r}: use 1 to 64 letters, digits, hyphens and underscores"
        )
