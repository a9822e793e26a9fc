"""The memory for the bodies of all requests in flight in this process."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        self._most_uploads = config.max_uploads_per_client
        self._uploads: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether nothing more can be held now."""
        return self.used >= self.most

    def take(self, held: Held, count: int) -> None:
        """Hold more bytes of a request's body; `give` them back when it is answered.

        Raises:
            Overloaded: there is no room for them.
        """
        if self.used + count > self.most:
            raise Overloaded(
                f"the bodies of all requests here have {self.used:,} bytes, and {self.most:,} is "
                "the most (--max-memory): use another worker, or try again in a second",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.used += count
        held.body_bytes += count

    def give(self, held: Held) -> None:
        """Hold nothing of a request's body any more."""
        self.used -= held.body_bytes
        held.body_bytes = 0

    @contextmanager
    def upload(self, client: str) -> Iterator[None]:
        """Count an unfinished body of a client's address inside the `with` block.

        Raises:
            Overloaded: the client has too many of them.
        """
        if not self._most_uploads or not client:
            yield
            return
        if self._uploads[client] >= self._most_uploads:
            raise Overloaded(
                f"{self._most_uploads} uploads from {client} are unfinished here: finish some of "
                "them first, or use another worker",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._uploads[client] += 1
        try:
            yield
        finally:
            self._uploads[client] -= 1
            if not self._uploads[client]:
                del self._uploads[client]


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says `max`
            found = min(found, int(path.read_text()))
    return found
