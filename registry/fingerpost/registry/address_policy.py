"""Which registered addresses are used: whoever may write to the registry decides where images go.

A registry does not check what is registered: Consul 1.8.7 accepts `not a host!` as an address, and
its ACLs restrict who may register a service, not at which address. A client that believes every
entry can be sent anywhere inside the operator's network. So the address of every decoded instance
is checked here:

1. Always rejected: link-local addresses (169.254.0.0/16 with the clouds' metadata service at
   169.254.169.254, and fe80::/10), the metadata services outside that range, multicast, 0.0.0.0/8
   and `::`, broadcast and the reserved 240.0.0.0/4. No worker can be reached by others at any of
   them. The IPv4 address inside an IPv4-mapped (::ffff:0:0/96) or NAT64 (64:ff9b::/96) IPv6
   address is checked, because the connection ends there.
2. With a list of networks, every address outside them is rejected; the list is exhaustive, so that
   loopback must be on it too.
3. Without a list every other address is allowed, loopback too: demos and one-machine clusters use
   it.
4. Host names are allowed only without a list. A name could resolve to any address, and to another
   one at each look-up (DNS rebinding), so that a check here would guarantee nothing. Rejected
   designs: resolving here (the client resolves again, and may get another answer) and checking at
   the connection only (every user of an address would have to, TensorFlow's clients and curl
   included). Fingerpost's own connections check rule 1 once more when a name was resolved.
   `metadata.google.internal` is always rejected.
5. A foreign worker is used if its service is one of `foreign_services`; see `foreign`.
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

__all__ = ["AddressPolicy", "RejectedEntries", "Rejection", "RejectionReason", "never_allowed"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
# Metadata services outside the link-local ranges: AWS over IPv6, Alibaba Cloud, Google by name.
_METADATA: Final = frozenset({"fd00:ec2::254", "100.100.100.200", "metadata.google.internal"})


class RejectionReason(enum.StrEnum):
    """Why an entry was rejected; the value is the label `reason` of a metric."""

    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"
    OUTSIDE_NETWORKS = "outside_networks"
    HOST_NAME = "host_name"
    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SIGNATURE = "wrong_signature"
    KEY_NOT_ALLOWED = "key_not_allowed"
    SIGNATURE_EXPIRED = "signature_expired"
    FOREIGN = "foreign"


class Rejection(msgspec.Struct, frozen=True):
    """Why an entry is not used: the reason to count, and a message for people."""

    reason: RejectionReason
    message: str


class AddressPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which addresses of workers are allowed; the module's docstring has the rules.

    Attributes:
        networks: the networks of all workers. Every address outside them and every host name is
            rejected. Empty, the default, allows every address that rule 1 does not reject.
        foreign_services: the services of which foreign workers are used; None allows all.
    """

    networks: tuple[_Network, ...] = ()
    foreign_services: frozenset[str] | None = None

    @classmethod
    def parse(cls, networks: Iterable[str], foreign_services: Iterable[str] | None = None) -> Self:
        """A policy from networks as text, such as `10.0.0.0/8` and `2001:db8::/32`.

        Raises:
            ConfigurationError: one of them is not a valid network.
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
        return cls(
            networks=tuple(parsed),
            foreign_services=None if foreign_services is None else frozenset(foreign_services),
        )

    def takes_foreign(self, service: str, *, unnamed: bool = True) -> bool:
        """Whether foreign workers of a service are used.

        Args:
            unnamed: whether None means all services; where entries are signed, it means none.
        """
        if self.foreign_services is None:
            return unnamed
        return service in self.foreign_services

    def rejection(self, instance: Instance) -> Rejection | None:
        """Why `instance` is rejected, or None where it is allowed."""
        try:
            address = _final_address(ipaddress.ip_address(instance.host))
        except ValueError:
            return self._name_rejection(instance.host)
        if (reason := never_allowed(address)) is not None:
            kind = reason.value.replace("_", "-")
            return Rejection(
                reason, f"its address {instance.host} is {kind}: no worker can have it"
            )
        if self.networks and not any(address in network for network in self.networks):
            return Rejection(
                RejectionReason.OUTSIDE_NETWORKS,
                f"its address {instance.host} is outside the allowed networks "
                f"{self._listed()}; allow its network if the worker is one of yours",
            )
        return None

    def _name_rejection(self, host: str) -> Rejection | None:
        if host.lower().rstrip(".") in _METADATA:
            return Rejection(
                RejectionReason.METADATA, f"its host {host} is a cloud's metadata service"
            )
        if self.networks:
            return Rejection(
                RejectionReason.HOST_NAME,
                f"its host {host} is a name, which could resolve outside the allowed networks "
                f"{self._listed()}; register the worker with its IP address",
            )
        return None

    def _listed(self) -> str:
        more = ", ..." if len(self.networks) > 5 else ""
        return ", ".join(map(str, self.networks[:5])) + more


class RejectedEntries:
    """The entries rejected so far: a count by reason, and the ids that were counted.

    An entry is counted when it is first seen, not at every poll, and again if it comes back after
    it was removed or allowed.

    Attributes:
        by_reason: how many entries were rejected for each reason.
    """

    def __init__(self) -> None:
        self.by_reason: dict[RejectionReason, int] = {}
        self._seen: dict[str, frozenset[str]] = {}

    @property
    def total(self) -> int:
        """The number of all rejected entries."""
        return sum(self.by_reason.values())

    def note(self, service: str, rejected: dict[str, Rejection]) -> dict[str, Rejection]:
        """Count the rejected entries of one service, by id; return the new ones, to be logged."""
        seen = self._seen.get(service, frozenset())
        new = {each: rejected[each] for each in sorted(rejected.keys() - seen)}
        for rejection in new.values():
            self.by_reason[rejection.reason] = self.by_reason.get(rejection.reason, 0) + 1
        if rejected:
            self._seen[service] = frozenset(rejected)
        else:
            self._seen.pop(service, None)
        return new


def _final_address(address: _Address) -> _Address:
    """The address where a connection ends: the IPv4 address inside a translated IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def never_allowed(address: _Address) -> RejectionReason | None:
    """Why no worker can have `address` (rule 1), or None where one can."""
    address = _final_address(address)
    if str(address) in _METADATA or str(address) == "169.254.169.254":
        return RejectionReason.METADATA
    if address.is_link_local:
        return RejectionReason.LINK_LOCAL
    if address.is_multicast:
        return RejectionReason.MULTICAST
    if address.is_unspecified or address in _THIS_NETWORK:
        return RejectionReason.UNSPECIFIED
    if isinstance(address, ipaddress.IPv4Address) and address.is_reserved:
        return RejectionReason.RESERVED
    return None
