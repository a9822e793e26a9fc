"""Small documents that a registry keeps beside the instances, such as public keys."""

from __future__ import annotations

from typing import Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.names import check_service

__all__ = ["LEASE_KEYS", "MAX_DOCUMENT_BYTES", "check_document"]

# The document with the public keys of those who sign leases, a JWKS.
LEASE_KEYS: Final = "lease-keys"
# ZooKeeper's limit is 1 MB, Consul's half of that.
MAX_DOCUMENT_BYTES: Final = 65_536


def check_document(name: str, content: bytes = b"") -> str:
    """The name of a document, checked as that of a service, and the size of its content.

    Raises:
        InvalidName: it is not a valid name.
        ConfigurationError: the content is too long.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ConfigurationError(
            f"the document {name!r} has {len(content):,} bytes, over the limit of "
            f"{MAX_DOCUMENT_BYTES:,}"
        )
    return check_service(name)
