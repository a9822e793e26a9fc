"""The memory for the bodies of all requests in flight in this process.

Tenants share it by dynamic thresholds (Choudhury and Hahne, 1998): each has twice what is free, at
most. So one alone has two thirds, one more finds two thirds of the rest, and some is always free
for the next, however slowly the bodies of the others arrive: none of theirs has to be thrown away.
Rejected: a fixed part for each tenant, which leaves most of it empty; and the end of the uploads of
whoever has the most, as in the queue, which has received their bytes in vain. Requests without a
lease are not told apart, and have all.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.basics.remote_network import remote_network
from fingerpost.errors import Overloaded
from fingerpost.security.grant import NO_LIMITS

if TYPE_CHECKING:
    from fingerpost.security.grant import Grant
    from fingerpost.worker.config import RequestConfig

__all__ = ["BodyMemory", "Held", "machine_memory"]

# Of cgroups, versions 2 and 1: of this process's own group, as containers see it.
_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Of the machine's memory: models, decoded images and the frameworks have the rest.
_SHARE: Final = 8
_RETRY_AFTER_S: Final = 1.0
# Most bytes of a tenant, in parts of those that are free.
_TIMES_FREE: Final = 2


class Held(Protocol):
    """A request, how many bytes of its body are held, and what its tenant may do."""

    body_bytes: int
    grant: Grant


class BodyMemory:
    """Counts the bytes of bodies from their arrival until their request is answered.

    Bytes count when they have arrived, not when they are announced: announcing costs nothing.

    Attributes:
        most: most bytes at once.
        used: bytes held now.
    """

    def __init__(self, config: RequestConfig) -> None:
        derived = max(machine_memory() // _SHARE, 2 * config.max_bytes)
        self.most = config.max_memory_bytes or derived
        self.used = 0
        self._tenants: Counter[str] = Counter()  # bytes of those with a lease
        self._most_uploads = config.max_uploads_per_client
        self._uploads: dict[str, int] = {}

    def has_room(self, grant: Grant, count: int = 1) -> bool:
        """Whether so many more bytes of a tenant can be held now."""
        free = self.most - self.used - count
        return free >= 0 and (grant is NO_LIMITS or self._may_have(grant, count, free))

    def hold(self, grant: Grant, count: int) -> None:
        """Count more bytes of a tenant, or fewer; whether there is room is not checked."""
        self.used += count
        if grant is not NO_LIMITS:
            tenants, name = self._tenants, grant.tenant
            # Not by what a Counter has of its own, which is in Python.
            tenants[name] = held = tenants.get(name, 0) + count
            if not held:
                tenants.pop(name)

    def take(self, held: Held, count: int) -> None:
        """Hold more bytes of a request's body; `give` them back when it is answered.

        Raises:
            Overloaded: there is no room for them.
        """
        used, grant = self.used + count, held.grant
        if used > self.most:
            raise self._overloaded("")
        if grant is NO_LIMITS:
            self.used = used
        elif self._may_have(grant, count, self.most - used):
            self.hold(grant, count)
        else:
            raise self._overloaded(f"tenant {grant.tenant!r} has its share: ", "share_of_memory")
        held.body_bytes += count

    def give(self, held: Held) -> None:
        """Hold nothing of a request's body any more."""
        if held.grant is NO_LIMITS:
            self.used -= held.body_bytes
        else:
            self.hold(held.grant, -held.body_bytes)
        held.body_bytes = 0

    def _may_have(self, grant: Grant, count: int, free: int) -> bool:
        return self._tenants.get(grant.tenant, 0) + count <= _TIMES_FREE * free

    def _overloaded(self, why: str, limit: str = "") -> Overloaded:
        return Overloaded(
            f"{why}the bodies of all requests here have {self.used:,} bytes, and {self.most:,} is "
            "the most (--max-memory): use another worker, or try again in a second",
            retry_after_s=_RETRY_AFTER_S,
            limit=limit,
        )

    def upload(self, client: str) -> AbstractContextManager[None]:
        """Count an unfinished body of a client's address inside the `with` block.

        Raises:
            Overloaded: the client has too many of them; at the beginning of the block.
        """
        if not self._most_uploads or not client:
            return nullcontext()
        return _Upload(self._uploads, remote_network(client), self._most_uploads)


class _Upload(AbstractContextManager[None]):
    """One unfinished body; a generator would take three times as long.

    Args:
        counts: how many of them each client has; who has none is not in it.
    """

    __slots__ = ("_client", "_counts", "_most")

    def __init__(self, counts: dict[str, int], client: str, most: int) -> None:
        self._counts, self._client, self._most = counts, client, most

    def __enter__(self) -> None:
        count = self._counts.get(self._client, 0)
        if count >= self._most:
            raise Overloaded(
                f"{self._most} uploads from {self._client} are unfinished here: finish some of "
                "them first, or use another worker",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._counts[self._client] = count + 1

    def __exit__(self, *_: object) -> None:
        left = self._counts[self._client] - 1
        if left:
            self._counts[self._client] = left
        else:
            del self._counts[self._client]


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says `max`
            found = min(found, int(path.read_text()))
    return found
