"""How fast one address, or one /64 of IPv6, may try credentials, of whatever kind; pure.

Each failure doubles the time that the address's next attempts take, from 0.25 s to 5 s each, one
after the other, also attempts with the right credential, so that the time says nothing about it. A
success, or ten minutes without an attempt, ends that.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fingerpost.basics.remote_network import remote_network
from fingerpost.errors import Overloaded

__all__ = ["Attempts"]

_FIRST_S: Final = 0.25
_MOST_S: Final = 5.0
_FORGET_S: Final = 600.0
# Longer waits are refused: 4 attempts of one address wait at most, and no connection is held.
_LONGEST_WAIT_S: Final = 20.0
_MAX_ADDRESSES: Final = 10_000


@dataclass(slots=True)
class _Address:
    failures: int = 0
    next_at: float = 0.0


class Attempts:
    """The failed attempts of each address; pure."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """How many seconds an attempt that comes now has to wait; the next one waits longer.

        Raises:
            Overloaded: too many wait already.
        """
        address = remote_network(address)
        each = self._addresses.get(address)
        if each is None:
            return 0.0
        if now > each.next_at + _FORGET_S:
            del self._addresses[address]
            return 0.0
        interval_s = min(_MOST_S, _FIRST_S * 2.0 ** min(each.failures - 1, 10))
        wait_s = max(0.0, each.next_at - now)
        if wait_s > _LONGEST_WAIT_S:
            raise Overloaded("too many attempts with a wrong credential", retry_after_s=wait_s)
        each.next_at = max(now, each.next_at) + interval_s
        return wait_s

    def failed(self, address: str, now: float) -> None:
        """Count a wrong credential."""
        address = remote_network(address)
        each = self._addresses.setdefault(address, _Address())
        self._addresses.move_to_end(address)
        each.failures += 1
        interval_s = min(_MOST_S, _FIRST_S * 2.0 ** min(each.failures - 1, 10))
        each.next_at = max(each.next_at, now + interval_s)
        if len(self._addresses) > _MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        self._addresses.pop(remote_network(address), None)
