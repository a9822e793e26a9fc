"""When to poll a registry again, and with which index: decisions only, no clock, no sockets.

The rules are those of Consul's blocking queries
(https://developer.hashicorp.com/consul/api-docs/features/blocking) and of what was seen there:

1. The first poll has index 0, which answers at once.
2. A poll that succeeded gives the next index. One below 1 counts as 1, because index 0 does not
   block and would spin. One that goes backwards means that the registry lost its memory: start
   again from 0.
3. Any error resets the index to 0. A watcher that kept its index was blind for 21 s after a
   leader's death; one that reset it, for 1.1 s.
4. Errors back off with full jitter, so that watchers do not return in step.
5. Answers are rate limited by a token bucket, so that a flapping registry, or one that does not
   block, costs a bounded number of polls.

What a new list is worth is judged in `shrinkage`; what differs between two lists, by `diff`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.registry.backoff import Backoff
from fingerpost.registry.instance import Instance
from fingerpost.registry.watching.self_preservation import ShrinkageConfig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

__all__ = ["Change", "WatchConfig", "WatchRules", "diff"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two lists of instances, each part sorted by id.

    Attributes:
        added: new ids.
        removed: ids that are no longer there.
        changed: the new form of those whose id stayed and that differ in anything else.
    """

    added: tuple[Instance, ...] = ()
    removed: tuple[Instance, ...] = ()
    changed: tuple[Instance, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def diff(old: Iterable[Instance], new: Iterable[Instance]) -> Change:
    """What has to be done to `old` to get `new`, by id; of an id's repetitions the last counts."""
    before = {each.id: each for each in old}
    after = {each.id: each for each in new}
    stayed = sorted(before.keys() & after.keys())
    return Change(
        added=tuple(after[id_] for id_ in sorted(after.keys() - before.keys())),
        removed=tuple(before[id_] for id_ in sorted(before.keys() - after.keys())),
        changed=tuple(after[id_] for id_ in stayed if before[id_] != after[id_]),
    )


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a watch behaves.

    Attributes:
        wait_s: how long the registry may hold a poll. More means fewer idle polls; less notices
            a silently dead connection sooner. Consul adds up to wait/16.
        backoff_base_s: the first error's longest delay; doubled with each further one.
        backoff_cap_s: the longest delay. More spares a registry in trouble; less returns sooner.
        polls_per_s: polls that are sustained; one change each, so this bounds the update rate.
        burst: polls that may follow each other at once, for a rolling update's sake.
        disk_after_s: how long a first poll may take, in seconds, before the last good snapshot of
            an earlier process is used, where one is stored; a poll that fails brings it at once.
            More waits for the registry's own word; less answers sooner, with what may be stale.
        shrinkage: when a list that shrank is not believed, and the workers are asked themselves;
            None believes every list.
    """

    wait_s: float = 20.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 10.0
    polls_per_s: float = 5.0
    burst: int = 10
    disk_after_s: float = 1.0
    shrinkage: ShrinkageConfig | None = ShrinkageConfig()

    @property
    def deadline_s(self) -> float:
        """When to give a poll up: what Consul may take (wait x 17/16), and 5 s for the network."""
        return self.wait_s * 17 / 16 + 5.0


class WatchRules:
    """The state of one watch: `index` for the next poll, and the delay before it."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._backoff = Backoff(base_s=config.backoff_base_s, cap_s=config.backoff_cap_s)
        self._tokens = float(config.burst)
        self._refilled_at: float | None = None
        self.index = 0
        self.errors_in_a_row = 0

    def answered(self, index: int, *, now: float) -> float:
        """A poll succeeded with this index; return the seconds to wait before the next one."""
        self.errors_in_a_row = 0
        index = max(1, index)
        self.index = 0 if index < self.index else index
        return self._pace(now)

    def failed(self, rng: Random) -> float:
        """A poll failed; return the seconds to wait before the next one (full jitter)."""
        self.index = 0
        self.errors_in_a_row += 1
        return self._backoff.delay_s(self.errors_in_a_row - 1, rng)

    def _pace(self, now: float) -> float:
        config = self._config
        elapsed = 0.0 if self._refilled_at is None else max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._tokens = min(float(config.burst), self._tokens + elapsed * config.polls_per_s) - 1
        return max(0.0, -self._tokens / config.polls_per_s)
