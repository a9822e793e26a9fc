"""Changes among the workers of a model, as a sequence of events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from fingerpost.registry.watching.rules import WatchConfig

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance, ModelReference, Snapshot

__all__ = ["InstanceDiff", "ListedInstance", "WatchEvent", "versions"]

# A snapshot may be as old as one poll takes, and twice as old through a proxy. An older one means
# that the registry behind the proxy is unreachable.
_MAX_AGE_S: Final = 2 * WatchConfig().deadline_s


class ListedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared and shown of one worker.

    Attributes:
        versions: newest first, with their aliases: `4 (canary)`.
        state: `listed`; or `retained`, when the registry no longer lists the worker and gave no
            reason, but the worker itself still answers.
    """

    id: str
    address: str
    versions: tuple[str, ...]
    weight: int
    zone: str
    state: Literal["listed", "retained"]

    @classmethod
    def of(cls, instance: Instance, *, retained: bool) -> ListedInstance:
        """The compared part of a registered instance."""
        return cls(
            id=instance.id,
            address=instance.address,
            versions=tuple(versions(instance)),
            weight=instance.weight,
            zone=instance.zone,
            state="retained" if retained else "listed",
        )

    def changes(self, new: ListedInstance) -> dict[str, tuple[Any, Any]]:
        """The fields whose value differs in `new`: each with the old and the new value."""
        before, after = msgspec.structs.asdict(self), msgspec.structs.asdict(new)
        return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


class WatchEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change in a watched list of workers.

    Attributes:
        event: `joined`, `left` and `changed` are about one worker; `empty` means that no worker is
            left; `unreachable` and `back` are about the registry or the proxies.
        index: the index of the registry's list that shows the change.
        age_s: seconds since the registry confirmed that list.
        worker: the worker as it is now, or as it was before it left.
        changes: for `changed`, each differing field with its old and new value.
        message: an explanation for people.
    """

    event: Literal["joined", "left", "changed", "empty", "unreachable", "back"]
    index: int
    age_s: float
    worker: ListedInstance | None = None
    changes: dict[str, tuple[Any, Any]] = {}
    message: str = ""


class InstanceDiff:
    """Compares each snapshot of a watch with the one before; the first with an empty list.

    Args:
        reference: the model, version or alias whose workers count.
    """

    def __init__(self, reference: ModelReference) -> None:
        self._reference = reference
        self._listed: dict[str, ListedInstance] = {}
        self._first = True
        self._unreachable = False

    def update(
        self, snapshot: Snapshot, error: FingerpostError | None, now: float
    ) -> list[WatchEvent]:
        """What changed since the last update.

        Args:
            snapshot: the present list.
            error: why the registry could not confirm the list, or None if it could.
            now: the time, in seconds of the monotonic clock.
        """
        listed = {
            each.id: ListedInstance.of(each, retained=each.id in snapshot.retained)
            for each in snapshot.matching(self._reference)
        }
        before, self._listed = self._listed, listed
        age_s = snapshot.age_s(now)
        event = partial(WatchEvent, index=snapshot.index, age_s=round(age_s, 3))
        events = []
        unreachable = error is not None or age_s > _MAX_AGE_S
        if unreachable and not self._unreachable:
            why = error or "the proxy cannot reach its registry"
            events.append(event(event="unreachable", message=f"{why}; the list may be old"))
        elif self._unreachable and not unreachable:
            events.append(event(event="back"))
        self._unreachable = unreachable
        for id_ in sorted(before.keys() | listed.keys()):
            old, new = before.get(id_), listed.get(id_)
            if old is None:
                events.append(event(event="joined", worker=new))
            elif new is None:
                why = "drained or unhealthy" if id_ in snapshot.withdrawn else ""
                events.append(event(event="left", worker=old, message=why))
            elif changes := old.changes(new):
                events.append(event(event="changed", worker=new, changes=changes))
        if not listed and (before or self._first):
            none = f"no healthy worker serves {self._reference} now"
            events.append(event(event="empty", message=none))
        self._first = False
        return events


def versions(instance: Instance) -> list[str]:
    """The versions of an instance's models, each with its aliases: `4 (canary)`."""
    found = []
    for model in instance.models:
        for version in model.versions:
            aliases = [alias for alias, target in model.aliases.items() if target == version]
            found.append(f"{version} ({', '.join(aliases)})" if aliases else version)
    return found
