"""What a server says that other machines can reach without TLS."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig
    from fingerpost.worker.config import ZmqConfig

__all__ = ["warn_without_curve", "warn_without_tls"]

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


def warn_without_curve(host: str, config: ZmqConfig, *, insecure: bool) -> None:
    """The same of a worker's ZeroMQ port, which TLS does not encrypt."""
    if insecure or config.port is None or config.key is not None or _is_loopback(host):
        return
    logger.warning(
        "the ZeroMQ port of this worker listens on %s without CURVE: whoever reaches it may use "
        "it, and images travel in clear. Give it --zmq-key and --zmq-clients, or --insecure where "
        "the network is trusted",
        host,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
