"""Which entries of an answer are used."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fingerpost.registry.address_policy import (
    AddressPolicy,
    RejectedEntries,
    Rejection,
    RejectionReason,
)
from fingerpost.registry.watching.signatures import EntrySignatures, entry_rejection

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["EntrySelection", "ReadEntry"]

logger = logging.getLogger(__name__)


class ReadEntry(Protocol):
    """One entry of a service as a registry has it: an instance, or why it was rejected."""

    @property
    def id(self) -> str:
        """The entry's id; of a malformed one it may be anything."""
        ...

    @property
    def instance(self) -> Instance | None:
        """The instance; None where the entry is malformed."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether the registry has it on the healthy list."""
        ...

    @property
    def rejection(self) -> str:
        """What is wrong with a malformed entry."""
        ...


@dataclass(frozen=True, slots=True)
class EntrySelection:
    """Leaves out entries that are malformed or not allowed, logs and counts them."""

    address_policy: AddressPolicy
    signatures: EntrySignatures | None
    rejected_entries: RejectedEntries

    async def select(
        self, service: str, entries: Iterable[ReadEntry]
    ) -> tuple[tuple[Instance, ...], dict[str, str]]:
        """The healthy instances, sorted by id; the rejected ids and why, logged when first seen."""
        if self.signatures is not None:
            await self.signatures.verify(service, (e.instance for e in entries if e.instance))
        healthy: dict[str, Instance] = {}
        rejected: dict[str, Rejection] = {}
        for entry in entries:
            if entry.instance is None:
                rejected[entry.id] = Rejection(RejectionReason.MALFORMED, entry.rejection)
            elif why := entry_rejection(entry.instance, self.address_policy, self.signatures):
                rejected[entry.id] = why
            elif entry.healthy and healthy.setdefault(entry.id, entry.instance) != entry.instance:
                rejected[entry.id] = Rejection(
                    RejectionReason.DUPLICATE, "another node has an entry of the same id"
                )
        for entry_id, rejection in self.rejected_entries.note(service, rejected).items():
            logger.warning("%s: entry %r rejected: %s", service, entry_id, rejection.message)
        # An id that is also a good entry's is not withdrawn: anybody could write it into a bad one.
        left_out = {id_: each.message for id_, each in rejected.items() if id_ not in healthy}
        return tuple(healthy[entry_id] for entry_id in sorted(healthy)), left_out
