"""The thumbprint of the certificate that the other end of a TLS connection has proved to own."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport

__all__ = ["thumbprint_of"]


def thumbprint_of(transport: BaseTransport | None) -> str | None:
    """`x5t#S256` of RFC 8705: base64url, 43 letters; None without TLS or without a certificate."""
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert(binary_form=True)
    if not certificate:
        return None
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()
