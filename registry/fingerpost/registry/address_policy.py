"""Which registrations are let in: whoever may write to the registry decides where images go.

A registry checks nothing of what is registered: Consul 1.8.7 takes `not a host!` as an address,
and its ACLs say who may register a service, not at which address. A client that believes it can be
sent anywhere inside the operator's network. So every decoded instance is judged here, by address:

1. Always refused: link-local addresses (169.254.0.0/16 with the clouds' metadata service at
   169.254.169.254, and fe80::/10), the metadata services outside that range, multicast, 0.0.0.0/8
   and `::`, broadcast and the reserved 240.0.0.0/4. No worker can be reached by others at any of
   them. The IPv4 address inside an IPv4-mapped (::ffff:0:0/96) or NAT64 (64:ff9b::/96) IPv6
   address is judged, because the connection ends there.
2. With a list of networks, every address outside them is refused; the list is exhaustive, so that
   loopback must be on it too.
3. Without one every other address is let in, loopback too: demos and one-machine clusters live
   there.
4. Host names are let in only without a list. A name could resolve anywhere, and elsewhere at every
   look-up (DNS rebinding), so that judging it here would promise what nobody keeps. Rejected:
   resolving here (the client resolves again, and may get another answer) and judging where it is
   connected to (every user of an address would have to, TensorFlow's clients and curl included).
   `metadata.google.internal` is refused even so.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["AddressPolicy", "Reason", "RejectedEntries", "Rejection"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
# Metadata services outside the link-local ranges: AWS over IPv6, Alibaba Cloud, Google by name.
_METADATA: Final = frozenset({"fd00:ec2::254", "100.100.100.200", "metadata.google.internal"})


class Reason(enum.StrEnum):
    """Why an entry was refused; the value is the label of a metric."""

    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"
    OUTSIDE_NETWORKS = "outside_networks"
    HOST_NAME = "host_name"


class Rejection(msgspec.Struct, frozen=True):
    """Why an entry is left out: the reason to count, and a message for people."""

    reason: Reason
    message: str


class AddressPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's rule about addresses; the module's docstring has it in full.

    Attributes:
        networks: where workers may be; empty (the default) means anywhere but rule 1. Listing
            networks shuts out whoever registers an address elsewhere, and all host names.
    """

    networks: tuple[_Network, ...] = ()

    @classmethod
    def parse(cls, networks: Iterable[str]) -> Self:
        """From networks as written on a command line, such as `10.0.0.0/8` and `2001:db8::/32`.

        Raises:
            ConfigurationError: one of them is no network.
        """
        parsed = []
        for text in networks:
            try:
                parsed.append(ipaddress.ip_network(text.strip(), strict=False))
            except ValueError as error:
                raise ConfigurationError(
                    f"allowed network {text!r}: {error}; give an address and a prefix length, "
                    "such as 10.0.0.0/8 or 192.168.7.9/32"
                ) from error
        return cls(networks=tuple(parsed))

    def rejection(self, instance: Instance) -> Rejection | None:
        """Why `instance` is not let in, or None where it is."""
        try:
            address = _end_of(ipaddress.ip_address(instance.host))
        except ValueError:
            return self._refuse_name(instance.host)
        if (reason := _never(address)) is not None:
            kind = reason.value.replace("_", "-")
            return Rejection(
                reason, f"its address {instance.host} is {kind}: no worker can be there"
            )
        if self.networks and not any(address in network for network in self.networks):
            return Rejection(
                Reason.OUTSIDE_NETWORKS,
                f"its address {instance.host} is outside the allowed networks "
                f"{self._listed()}; allow its network if the worker is one of yours",
            )
        return None

    def _refuse_name(self, host: str) -> Rejection | None:
        if host.lower().rstrip(".") in _METADATA:
            return Rejection(Reason.METADATA, f"its host {host} is a cloud's metadata service")
        if self.networks:
            return Rejection(
                Reason.HOST_NAME,
                f"its host {host} is a name, which could resolve to outside the allowed networks "
                f"{self._listed()}; register the worker with its IP address",
            )
        return None

    def _listed(self) -> str:
        more = ", ..." if len(self.networks) > 5 else ""
        return ", ".join(map(str, self.networks[:5])) + more


class RejectedEntries:
    """What was refused so far: a count by reason, and which ids are known as refused already.

    An entry is counted when it is first seen, not at every look at the list, and again if it comes
    back after it had been gone or let in.
    """

    def __init__(self) -> None:
        self.by_reason: dict[Reason, int] = {}
        self._seen: dict[str, frozenset[str]] = {}

    @property
    def total(self) -> int:
        """All rejections."""
        return sum(self.by_reason.values())

    def note(self, service: str, refused: dict[str, Rejection]) -> dict[str, Rejection]:
        """Take all that is refused of one service now, by id; return what is new, to be logged."""
        seen = self._seen.get(service, frozenset())
        new = {each: refused[each] for each in sorted(refused.keys() - seen)}
        for rejection in new.values():
            self.by_reason[rejection.reason] = self.by_reason.get(rejection.reason, 0) + 1
        if refused:
            self._seen[service] = frozenset(refused)
        else:
            self._seen.pop(service, None)
        return new


def _end_of(address: _Address) -> _Address:
    """Where a connection to `address` ends: the IPv4 address inside a translated IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _never(address: _Address) -> Reason | None:
    """Why no worker can be at `address` (rule 1), or None where one can."""
    if str(address) in _METADATA or str(address) == "169.254.169.254":
        return Reason.METADATA
    if address.is_link_local:
        return Reason.LINK_LOCAL
    if address.is_multicast:
        return Reason.MULTICAST
    if address.is_unspecified or address in _THIS_NETWORK:
        return Reason.UNSPECIFIED
    if isinstance(address, ipaddress.IPv4Address) and address.is_reserved:
        return Reason.RESERVED
    return None
