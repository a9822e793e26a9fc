"""The TLS of the gRPC server: the same files as HTTP's, read again when they change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from fingerpost.errors import ConfigurationError
from fingerpost.security.tls import ServerTls
from fingerpost.security.tls.files import ChangingFiles

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig

__all__ = ["server_credentials"]


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Credentials that ask for the files at each handshake; the last good ones stay in use.

    Raises:
        ConfigurationError: a file is not valid, to begin with.
    """
    files = ChangingFiles((config.cert, config.key, config.client_ca))

    def changed() -> Any:
        """What is new, or None; gRPC calls it in a thread of its own."""
        if not files.changed():
            return None
        try:
            return _read(config)
        except ConfigurationError:
            return None  # the HTTP server, which has the same files, logs it

    return grpc.dynamic_ssl_server_credentials(_read(config), changed, bool(config.client_ca))


def _read(config: TlsConfig) -> grpc.ServerCertificateConfiguration:
    ServerTls(config)  # says what is wrong with a file, which gRPC does not
    try:
        key, cert = (Path(name or "").read_bytes() for name in (config.key, config.cert))
        ca = Path(config.client_ca).read_bytes() if config.client_ca else None
    except OSError as error:  # it was there just now
        raise ConfigurationError(f"TLS: {error.filename}: {error.strerror}") from error
    return grpc.ssl_server_certificate_configuration([(key, cert)], ca)
