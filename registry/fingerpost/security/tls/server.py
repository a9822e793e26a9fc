"""A server's TLS: the context for each new connection."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.security.secret_file import warn_if_public
from fingerpost.security.tls.certificate import own_certificate
from fingerpost.security.tls.files import ChangingFiles, load_authorities, load_pair

if TYPE_CHECKING:
    from fingerpost.security.tls.certificate import OwnCertificate
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["CIPHERS", "ServerTls"]

logger = logging.getLogger(__name__)

# Of TLS 1.2: only those with forward secrecy and authenticated encryption (RFC 9325, section 4.2).
# Those of TLS 1.3 all have both.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_REMEDY: Final = "renew it (new connections use the new one at once)"


class ServerTls:
    """The context for each new connection, made again when the files change.

    A session ticket is taken by the context that gave it: after a change, connections begin with a
    whole handshake, so that a withdrawn authority is not trusted on by old sessions.

    Args:
        config: has a certificate.
        clock: the time of day, in seconds since the epoch.

    Raises:
        ConfigurationError: a file is not valid, or the certificate has expired.
    """

    def __init__(self, config: TlsConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        # First: a write after it is seen at the next call.
        self._files = ChangingFiles((config.cert, config.key, config.client_ca))
        self._context, self.certificate = _load(config)
        warn_if_public(Path(config.key or ""), "the TLS key")
        now = clock()
        if self.certificate.not_after <= now:
            raise ConfigurationError(f"{self._expired()}: {_REMEDY}")
        if self.certificate.not_before > now:
            logger.warning(
                "TLS certificate %r is valid only from %s on: look at this machine's clock",
                config.cert,
                _date(self.certificate.not_before),
            )
        self._warned: float | None = None  # the end of validity that was told

    @property
    def mutual(self) -> bool:
        """Whether clients must show a certificate."""
        return self._config.client_ca is not None

    def current(self) -> ssl.SSLContext:
        """The context for a new connection."""
        if self._files.changed():
            try:
                self._context, self.certificate = _load(self._config)
            except ConfigurationError as error:
                logger.error("%s; the last good certificate stays in use", error)  # noqa: TRY400 - one line
            else:
                logger.info(
                    "TLS certificate %r was read again: valid until %s",
                    self._config.cert,
                    _date(self.certificate.not_after),
                )
        self._tell_expiry()
        return self._context

    def _tell_expiry(self) -> None:
        """Say once that the certificate has expired while it serves."""
        until = self.certificate.not_after
        if self._warned != until and until <= self._clock():
            self._warned = until
            logger.error("%s, so clients refuse this server: %s", self._expired(), _REMEDY)

    def _expired(self) -> str:
        until = _date(self.certificate.not_after)
        return f"TLS certificate {self._config.cert!r} has expired ({until})"


def _load(config: TlsConfig) -> tuple[ssl.SSLContext, OwnCertificate]:
    cert, key = config.cert, config.key
    if cert is None or key is None:
        raise ConfigurationError("a server needs a TLS certificate and key (--tls-cert, --tls-key)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, cert, key)
    try:
        own = own_certificate(context, cert)
    except (ssl.SSLError, OSError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"TLS certificate {cert!r} cannot be used by a server: {error}"
        ) from error
    if config.client_ca is not None:
        load_authorities(context, config.client_ca, "authorities of clients (--tls-client-ca)")
        context.verify_mode = ssl.CERT_REQUIRED
    return context, own


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
