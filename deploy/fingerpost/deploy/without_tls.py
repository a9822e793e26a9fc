"""What a server says that other machines can reach without TLS."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig

__all__ = ["warn_without_tls"]

logger = logging.getLogger(__name__)


def warn_without_tls(what: str, host: str, tls: TlsConfig | None, *, insecure: bool) -> None:
    """Log it once, unless it speaks TLS, listens on loopback, or `insecure` says it is known."""
    if insecure or (tls is not None and tls.serves) or _is_loopback(host):
        return
    logger.warning(
        "this %s listens on %s without TLS: whoever reaches it may use it, and images travel in "
        "clear. Give it --tls-cert and --tls-key, or --insecure where the network is trusted",
        what,
        host,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
