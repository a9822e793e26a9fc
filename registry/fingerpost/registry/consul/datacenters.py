"""Which datacenter a service is read from. Pure: the function that reads is passed in.

The rule, for every resolve and every poll of a watch:

1. The datacenters are asked in the order given, the own one first. The first that has a healthy
   instance is the answer; instances of two datacenters are never mixed.
2. None has one: the answer is empty if all of them answered, and `known` if any of them knows the
   service. If one failed, its error is the answer (the first one's): the instances may be there.
3. `RegistryDenied` ends the search: a token that lacks rights must be corrected first.
4. While the answer is not the own datacenter's, or is empty, a poll of a watch is held for at most
   `RETURN_S`, and then asks those before it again. So a return takes at most that long.

Reads of other datacenters go through the same agent and the servers of its own datacenter. While
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

# More asks datacenters without instances less often; less returns to the own one sooner.
RETURN_S: Final = 5.0

# Takes the position in the order, an index, and for how many seconds the read may be held.
Read = Callable[[int, int, float], Awaitable[tuple[Snapshot, int]]]


class DatacenterOrder:
    """Reads one service over the datacenters `names`, at least one; remembers the active one."""

    def __init__(self, service: str, names: tuple[str, ...], read: Read) -> None:
        self._service = service
        self._names = names
        self._read = read
        self._active = 0
        self._settled = True

    async def poll(self, index: int, wait_s: float) -> tuple[Snapshot, int]:
        """Read; the datacenter of the last answer may hold it for `wait_s` if nothing changed.

        `index` is what the last call returned, or 0 for an answer at once.

        Raises:
            RegistryError: by rules 2 and 3 of the module.
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
            raise error or RegistryError(f"no datacenter answered for {self._service!r}")
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
