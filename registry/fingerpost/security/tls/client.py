"""A client's TLS: the context for each new connection, and who is at its other end."""

from __future__ import annotations

import logging
import ssl
from typing import Any, cast

from fingerpost.errors import ConfigurationError, TlsFailed
from fingerpost.security.tls.config import TlsConfig
from fingerpost.security.tls.files import ChangingFiles, load_authorities, load_pair
from fingerpost.security.tls.server import CIPHERS
from fingerpost.security.tls.spiffe import spiffe_ids, worker_problem

__all__ = ["ClientTls", "OwnServerTls"]

logger = logging.getLogger(__name__)


class ClientTls:
    """The contexts for new connections, made when they are first needed, and when files change.

    Every context checks the other end during the handshake: its certificate, and either its host
    name or that it is of a worker of the wanted service. So whatever library opens a connection
    with it has a verified peer, or an `ssl.SSLError`.

    Args:
        config: None trusts the authorities of the system, and uses workers without TLS too.

    Raises:
        ConfigurationError: a file is not valid.
    """

    def __init__(self, config: TlsConfig | None = None) -> None:
        self._config = config or TlsConfig()
        self._files = ChangingFiles((self._config.cert, self._config.key, self._config.ca))
        self._contexts: dict[str | None, _PeerContext] = {}
        if config is not None:
            self.for_host()  # says at once what is wrong

    @property
    def requires(self) -> bool:
        """Whether nothing may be sent to a worker without TLS."""
        return self._config.ca is not None and not self._config.allow_plain

    def for_host(self) -> ssl.SSLContext:
        """For a server that was named by its URL: its host name is checked."""
        return self._context(None)

    def for_worker(self, service: str, *, speaks_tls: bool, peer: str) -> ssl.SSLContext | None:
        """For a worker of a service, as a registry knows it; None for one without TLS.

        Args:
            speaks_tls: what its entry says.
            peer: names it in errors.

        Raises:
            TlsFailed: it speaks no TLS, and must.
        """
        if speaks_tls:
            return self._context(service if self._config.trust_domain else None)
        if self.requires:
            raise TlsFailed(
                f"{peer}: this worker is registered without TLS, and only workers with a "
                "certificate are used: start it with --tls-cert and --tls-key"
            )
        return None

    def for_any_worker(self) -> ssl.SSLContext:
        """For a worker whose service is not known."""
        return self._context("*" if self._config.trust_domain else None)

    def _context(self, service: str | None) -> _PeerContext:
        if self._files.changed():
            before, self._contexts = self._contexts, {}
            try:
                self._context(None)
            except ConfigurationError as error:
                logger.error("%s; the last good certificates stay in use", error)  # noqa: TRY400 - one line
                self._contexts = before
            else:
                logger.info("the TLS certificates were read again")
        found = self._contexts.get(service)
        if found is None:
            found = self._contexts[service] = _make(self._config, service)
        return found


class OwnServerTls(ClientTls):
    """For a server's questions to itself: it shows its own certificate, and checks none.

    Who answers is found out by the boot id, and nothing secret is asked.
    """

    def for_worker(self, service: str, *, speaks_tls: bool, peer: str) -> ssl.SSLContext | None:
        """See `ClientTls.for_worker`."""
        if not speaks_tls:
            return None
        context = self.for_host()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class _PeerContext(ssl.SSLContext):
    """A client's context that checks a SPIFFE id where `service` is set."""

    service: str | None
    trust_domain: str

    def check_peer(self, cert: Any) -> None:
        """Raise `ssl.SSLCertVerificationError` where it is not a worker of the service."""
        if self.service is None:
            return
        problem = worker_problem(spiffe_ids(cert or {}), self.trust_domain, self.service)
        if problem:
            raise ssl.SSLCertVerificationError(1, problem)


class _CheckedObject(ssl.SSLObject):
    """For asyncio's transports."""

    def do_handshake(self) -> None:
        super().do_handshake()
        cast("_PeerContext", self.context).check_peer(self.getpeercert())


class _CheckedSocket(ssl.SSLSocket):
    """For sockets that are read and written directly."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - ssl's
        super().do_handshake(block)
        cast("_PeerContext", self.context).check_peer(self.getpeercert())


def _make(config: TlsConfig, service: str | None) -> _PeerContext:
    context = _PeerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.service = service
    context.trust_domain = config.trust_domain or ""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = service is None
    context.sslobject_class = _CheckedObject
    context.sslsocket_class = _CheckedSocket
    if config.ca is None:
        context.load_default_certs()
    else:
        load_authorities(context, config.ca, "authorities (--tls-ca)")
    if config.cert is not None and config.key is not None:
        load_pair(context, config.cert, config.key)
    return context
