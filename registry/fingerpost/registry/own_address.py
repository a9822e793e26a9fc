"""Whether an address is one of this machine."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["is_own_address"]


def is_own_address(host: str) -> bool:
    """Whether this machine has the address, which is numeric; False for a host name.

    A socket can be bound only to an address of one's own; nothing is sent.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True
