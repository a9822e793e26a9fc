"""Whose connections and attempts are counted together: the network of a remote address.

A provider gives each customer, and each host of most clouds, a /64 of IPv6 or more: 2^64 addresses,
so that a limit for each address would hold nobody. An IPv4 address counts by itself. So do nginx's,
Cloudflare's and Envoy's rate limits by remote address count, where they are told to mask it.

Not configurable: who has a /56 or a /48 has 256 or 65,536 of the shares of a /64, which the limits
of all clients together hold; a shorter prefix would count different customers together.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

__all__ = ["remote_network"]

_PREFIX: Final = 64


@lru_cache(4096)
def remote_network(address: str) -> str:
    """The network of an IP address: `192.0.2.7`, or `2001:db8:1:2::/64`.

    An IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.7`) is itself; what is not an
    address stays as it is.
    """
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> _PREFIX << _PREFIX)}/{_PREFIX}"
