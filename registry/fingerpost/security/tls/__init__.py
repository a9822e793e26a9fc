"""TLS for servers and clients: certificates from files, read again when they change; SPIFFE ids.

None of it is tied to HTTP: a server takes its context from `ServerTls`, a client from `ClientTls`.
"""

from fingerpost.security.tls.certificate import PeerCertificate, peer_certificate
from fingerpost.security.tls.client import ClientTls
from fingerpost.security.tls.config import TlsConfig
from fingerpost.security.tls.server import ServerTls

__all__ = ["ClientTls", "PeerCertificate", "ServerTls", "TlsConfig", "peer_certificate"]
