"""Which datacenter a service is read from. Decisions only: the reading is passed in.

The rule, for every resolve and every poll of a watch:

1. The datacenters are asked in the order given, the own one first. The first that has a healthy
   instance is the answer; instances of two datacenters are never mixed.
2. None has one: the answer is empty if all of them answered, and `known` if any of them knows the
   service. If one failed, its error is the answer (the first one's): the instances may be there.
3. `RegistryDenied` ends the search: a token that lacks rights is to be mended, not walked around.
4. While the answer is not the own datacenter's, or is empty, a watch is held for at most
   `RETURN_S` at a time, and asks those before it again: so long it takes to return.

Reads of other datacenters go through the same agent and the servers of its own datacenter. Where
those are down, no datacenter is reached, and a watch keeps its last good view.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fingerpost.errors import RegistryDenied, RegistryError
from fingerpost.registry.snapshot import Snapshot

__all__ = ["RETURN_S", "DatacenterOrder", "Read"]

logger = logging.getLogger(__name__)

# Longer asks the datacenters that are no use less often; shorter returns to the own one sooner.
RETURN_S: Final = 5.0

# Position in the order, index, and for how many seconds the read may be held.
Read = Callable[[int, int, float], Awaitable[tuple[Snapshot, int]]]


class DatacenterOrder:
    """One service's reads over `names`, which are at least one; remembers whose turn it is."""

    def __init__(self, service: str, names: tuple[str, ...], read: Read) -> None:
        self._service = service
        self._names = names
        self._read = read
        self._active = 0
        self._settled = True

    async def poll(self, index: int, wait_s: float) -> tuple[Snapshot, int]:
        """Read, held for at most `wait_s` by the datacenter of the last answer if nothing changed.

        `index` is what the last call returned, or 0 for an answer at once.

        Raises:
            RegistryError: see the rule.
        """
        if len(self._names) <= 1:
            return await self._read(0, index, wait_s)
        hold_s = wait_s if self._settled else min(wait_s, RETURN_S)
        error: RegistryError | None = None
        empty: tuple[Snapshot, int] | None = None
        empty_at = 0
        known = False
        for position in range(len(self._names)):
            held = bool(index) and position == self._active
            try:
                answer = await self._read(position, index if held else 0, hold_s if held else 0.0)
            except RegistryDenied:
                raise
            except RegistryError as failure:
                error = error or failure
                continue
            if answer[0].instances:
                self._turn_to(position, error)
                return answer
            known = known or answer[0].known
            if empty is None:
                empty, empty_at = answer, position
        self._settled = False
        if error is not None or empty is None:
            raise error or RegistryError(f"no datacenter answered about {self._service!r}")
        self._active = empty_at
        return msgspec.structs.replace(empty[0], known=known), empty[1]

    def _turn_to(self, position: int, error: RegistryError | None) -> None:
        if position != self._active:
            logger.warning(
                "%s: now read from datacenter %s, no longer %s%s",
                self._service,
                self._names[position],
                self._names[self._active],
                f": {error}" if error else "",
            )
        self._active = position
        self._settled = position == 0
