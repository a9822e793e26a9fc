"""TLS for servers and clients: certificates from files, read again when they change; SPIFFE ids.

None of it is tied to HTTP: a server takes its context from `ServerTls`, a client from `ClientTls`.
Modules are imported when they are used: a program without TLS does not pay for OpenSSL.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerpost.security.tls.certificate import PeerCertificate, peer_certificate
    from fingerpost.security.tls.client import ClientTls, OwnServerTls
    from fingerpost.security.tls.config import TlsConfig
    from fingerpost.security.tls.server import ServerTls

__all__ = [
    "ClientTls",
    "OwnServerTls",
    "PeerCertificate",
    "ServerTls",
    "TlsConfig",
    "peer_certificate",
]

_HOMES = {
    "ClientTls": "client",
    "OwnServerTls": "client",
    "PeerCertificate": "certificate",
    "ServerTls": "server",
    "TlsConfig": "config",
    "peer_certificate": "certificate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
