"""What changes among the workers of a model, one event at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from fingerpost.registry.watching.rules import WatchConfig

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance, ModelReference, Snapshot

__all__ = ["Event", "Sighting", "Sightings", "versions"]

# A view is as old as a poll may take, and through a proxy, whose own may be that old, twice that.
# Past it, the registry behind the proxy must be away.
_STALE_S: Final = 2 * WatchConfig().deadline_s


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as it is listed.

    Attributes:
        versions: newest first, with their aliases: `4 (canary)`.
        state: `listed`, or `kept` for one that has vanished from the registry's list without a
            word, but answers when it is asked itself.
    """

    id: str
    address: str
    versions: tuple[str, ...]
    weight: int
    zone: str
    state: Literal["listed", "kept"]

    @classmethod
    def of(cls, instance: Instance, *, kept: bool) -> Sighting:
        """What is shown of a registered instance."""
        return cls(
            id=instance.id,
            address=instance.address,
            versions=tuple(versions(instance)),
            weight=instance.weight,
            zone=instance.zone,
            state="kept" if kept else "listed",
        )

    def changes(self, now: Sighting) -> dict[str, tuple[Any, Any]]:
        """The fields that differ, each as it was and as it is."""
        before, after = msgspec.structs.asdict(self), msgspec.structs.asdict(now)
        return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that changed.

    Attributes:
        event: `joined`, `left` or `changed` tells of a worker; `empty` that none is left;
            `unreachable` and `back`, of the registry or the proxies.
        index: the registry's, of the list that shows it.
        age_s: seconds since the registry confirmed that list.
        worker: as it is now, or was.
        changes: what differs, as it was and as it is.
        message: for people.
    """

    event: Literal["joined", "left", "changed", "empty", "unreachable", "back"]
    index: int
    age_s: float
    worker: Sighting | None = None
    changes: dict[str, tuple[Any, Any]] = {}
    message: str = ""


class Sightings:
    """Compares each view of a watch with the one before; the first with nothing.

    Args:
        reference: the model, version or alias whose workers count.
    """

    def __init__(self, reference: ModelReference) -> None:
        self._reference = reference
        self._seen: dict[str, Sighting] = {}
        self._first = True
        self._away = False

    def look(self, view: Snapshot, error: FingerpostError | None, now: float) -> list[Event]:
        """What changed since the last look; `error` is why the view could not be confirmed."""
        seen = {
            each.id: Sighting.of(each, kept=each.id in view.kept)
            for each in view.matching(self._reference)
        }
        before, self._seen = self._seen, seen
        age_s = view.age_s(now)
        event = partial(Event, index=view.index, age_s=round(age_s, 3))
        events = []
        away = error is not None or age_s > _STALE_S
        if away and not self._away:
            why = error or "the proxy has not heard from it"
            events.append(event(event="unreachable", message=f"{why}; the list may be old"))
        elif self._away and not away:
            events.append(event(event="back"))
        self._away = away
        for id_ in sorted(before.keys() | seen.keys()):
            old, new = before.get(id_), seen.get(id_)
            if old is None:
                events.append(event(event="joined", worker=new))
            elif new is None:
                why = "taken off the list: drained, or unwell" if id_ in view.withdrawn else ""
                events.append(event(event="left", worker=old, message=why))
            elif changes := old.changes(new):
                events.append(event(event="changed", worker=new, changes=changes))
        if not seen and (before or self._first):
            none = f"no healthy worker serves {self._reference} now"
            events.append(event(event="empty", message=none))
        self._first = False
        return events


def versions(instance: Instance) -> list[str]:
    """Those of its models, with their aliases: `4 (canary)`."""
    told = []
    for model in instance.models:
        for version in model.versions:
            aliases = [alias for alias, target in model.aliases.items() if target == version]
            told.append(f"{version} ({', '.join(aliases)})" if aliases else version)
    return told
