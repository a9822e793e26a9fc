"""Certificates as values: that of a connection's other end, and a server's own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec

from fingerpost.security.tls.spiffe import spiffe_ids

__all__ = ["OwnCertificate", "PeerCertificate", "own_certificate", "peer_certificate"]

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name.
_NO_CHECK_TIME: Final = 0x200000


class PeerCertificate(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The verified certificate that the other end of a connection has shown.

    Attributes:
        der: the certificate, DER.
        subject: its subject, such as `CN=client-7,O=Example`; empty where it has none.
        spiffe_ids: the SPIFFE ids among its alternative names.
        dns_names: the host names among them.
    """

    der: bytes
    subject: str = ""
    spiffe_ids: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()

    @cached_property
    def thumbprint(self) -> str:
        """SHA-256 of the certificate in base64url, as in `x5t#S256` of RFC 8705."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.der).digest()).rstrip(b"=").decode()


class OwnCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a server's own certificate says.

    Attributes:
        not_before: seconds since the epoch from which on it is valid.
        not_after: seconds since the epoch until which it is valid.
        spiffe_ids: its SPIFFE ids.
        addresses: its IP addresses.
        dns_names: its host names, some with a `*`.
    """

    not_before: float
    not_after: float
    spiffe_ids: tuple[str, ...]
    addresses: tuple[str, ...]
    dns_names: tuple[str, ...]


class _Transport(Protocol):
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def peer_certificate(transport: _Transport | None) -> PeerCertificate | None:
    """The certificate that the other end has shown, verified by the TLS handshake.

    None without TLS, where none was asked for, or where the connection is gone.
    """
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    try:
        der, cert = tls.getpeercert(binary_form=True), tls.getpeercert()
    except ValueError:  # the handshake is not over
        return None
    if not der or not cert:  # not asked for, or not verified
        return None
    return PeerCertificate(
        der=der,
        subject=_subject(cert),
        spiffe_ids=spiffe_ids(cert),
        dns_names=_names(cert, "DNS"),
    )


def own_certificate(server: ssl.SSLContext, cert: str) -> OwnCertificate:
    """What the certificate in a server's context says; `cert` is the file that it is from.

    Found out by a handshake in memory, because the standard library decodes no certificate
    otherwise. Its time and its authority are not checked here.

    Raises:
        ssl.SSLError, OSError: the file is not a valid certificate.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cafile=cert)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server)
    for _ in range(4):  # the client is done after three flights at the most
        try:
            ours.do_handshake()
            break
        except ssl.SSLWantReadError:
            pass
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
    found = ours.getpeercert() or {}
    return OwnCertificate(
        not_before=_seconds(found, "notBefore"),
        not_after=_seconds(found, "notAfter"),
        spiffe_ids=spiffe_ids(found),
        addresses=_names(found, "IP Address"),
        dns_names=_names(found, "DNS"),
    )


def _seconds(cert: Mapping[str, Any], field: str) -> float:
    return float(ssl.cert_time_to_seconds(cert[field]))


def _names(cert: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    return tuple(value for name, value in cert.get("subjectAltName", ()) if name == kind)


def _subject(cert: Mapping[str, Any]) -> str:
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}
    parts = [pair for group in cert.get("subject", ()) for pair in group]
    return ",".join(f"{short.get(name, name)}={value}" for name, value in parts)
