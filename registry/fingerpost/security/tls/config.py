"""The settings of TLS. Pure: the files are read by `ServerTls` and `ClientTls`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fingerpost.errors import ConfigurationError

__all__ = ["TlsConfig", "check_trust_domain"]

# Lower case, as SPIFFE says; at most 255 bytes.
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Which certificates a process shows, and which ones it accepts. All files are PEM.

    They are read again when they change, without a restart: new connections use the new ones. While
    a file is not valid, as between the writing of a certificate and of its key, the last good ones
    stay in use.

    Attributes:
        cert: the certificate, then those of intermediate authorities. A server with it speaks TLS
            only; a client, and a proxy towards workers, shows it to who asks for one.
        key: its private key, without a pass phrase; may be `cert` itself.
        client_ca: the authorities of clients' certificates: a server with it takes connections only
            from clients that have one (mutual TLS). The file may hold several, as while one takes
            the place of another.
        ca: the authorities of workers' and proxies' certificates. Who has it sends nothing to a
            worker that speaks no TLS. None is the authorities of the system.
        trust_domain: the SPIFFE trust domain, such as `example.org`. A worker's certificate must
            then have the id `spiffe://example.org/fingerpost/worker/SERVICE`, and its host name is
            not checked. None checks the host name or IP address.
        allow_plain: use workers that speak no TLS too, although `ca` is given: for the time in
            which a cluster changes over. An impostor can then register without TLS.

    Raises:
        ConfigurationError: a value is not valid; the message names the field and the remedy.
    """

    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None
    ca: str | None = None
    trust_domain: str | None = None
    allow_plain: bool = False

    def __post_init__(self) -> None:
        for name in ("cert", "key", "client_ca", "ca"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"tls.{name}={value!r}: use the name of a PEM file")
        if self.cert is not None and self.key is None:
            raise ConfigurationError(
                f"TLS certificate {self.cert!r} has no key: name its private key (--tls-key), "
                "which may be in the same file"
            )
        if self.key is not None and self.cert is None:
            raise ConfigurationError(
                f"TLS key {self.key!r} has no certificate: name it (--tls-cert)"
            )
        if self.client_ca is not None and self.cert is None:
            raise ConfigurationError(
                f"client_ca={self.client_ca!r} has an effect only with TLS: give this server a "
                "certificate and key (--tls-cert, --tls-key)"
            )
        if self.trust_domain is not None:
            check_trust_domain(self.trust_domain)
            if self.ca is None:
                raise ConfigurationError(
                    f"trust_domain={self.trust_domain!r} needs the authorities that may name "
                    "workers: give their certificates (--tls-ca)"
                )
        if self.allow_plain and self.ca is None:
            raise ConfigurationError("allow_plain has an effect only with ca (--tls-ca)")

    @property
    def serves(self) -> bool:
        """Whether a server with it speaks TLS."""
        return self.cert is not None


def check_trust_domain(name: str) -> str:
    """Return `name` if it is a valid SPIFFE trust domain.

    Raises:
        ConfigurationError: it is not.
    """
    if not _TRUST_DOMAIN.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a valid SPIFFE trust domain: use lower-case letters, digits, dots, "
            "hyphens and underscores, such as example.org"
        )
    return name
