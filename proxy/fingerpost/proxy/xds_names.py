"""Names that the bootstrap file of a client of xDS and the proxy have in common."""

from __future__ import annotations

from typing import Final

__all__ = ["HAS_CERTIFICATE", "PROVIDER"]

# Of the client's certificate files: its authorities, and where it has one its own certificate.
PROVIDER: Final = "fingerpost"
# In the metadata of the client's node: whether that provider has a certificate of its own.
HAS_CERTIFICATE: Final = "fingerpost_certificate"
