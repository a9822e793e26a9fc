"""When to poll a registry again, and with which index. Pure: no clock, no sockets.

The rules are those of Consul's blocking queries
(https://developer.hashicorp.com/consul/api-docs/features/blocking), and what was observed there:

1. The first poll has index 0, which answers at once.
2. A poll that succeeded gives the next index. An index below 1 counts as 1, because index 0 does
   not block and would spin. An index that goes backwards means that the registry lost its memory:
   start again from 0.
3. Any error resets the index to 0. A watcher that kept its index was blind for 21 s after a
   leader's death; one that reset it, for 1.1 s.
4. Errors back off with full jitter, so that watchers do not return at the same time.
5. Answers are rate limited by a token bucket, so that a flapping registry, or one that does not
   block, costs a bounded number of polls.

Whether a new list is believed is decided in `self_preservation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from fingerpost.basics.backoff import Backoff
from fingerpost.basics.renames import renamed_fields
from fingerpost.errors import ConfigurationError
from fingerpost.registry.watching.self_preservation import SelfPreservationConfig

if TYPE_CHECKING:
    from random import Random

__all__ = ["WatchConfig", "WatchRules"]


@renamed_fields(shrinkage="self_preservation", disk_after_s="stored_after_s")
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """How a watch polls a registry.

    Attributes:
        wait_s: how long the registry may hold a poll that has nothing new, in seconds. More means
            fewer idle polls; less notices a dead connection sooner. Consul adds up to wait/16.
        backoff_base_s: the longest delay after a first failed poll, in seconds, doubled with each
            further failure. More spares a registry in trouble; less returns sooner.
        backoff_cap_s: the longest delay after any failed poll, in seconds; as `backoff_base_s`.
        polls_per_s: the sustained rate of polls. Each shows one change, so this also bounds the
            rate of updates; more costs the registry more when a service flaps.
        burst: how many polls may follow each other without delay, so that a rolling update is seen
            at once; as `polls_per_s`.
        stored_after_s: how long a first poll may take, in seconds, before the snapshot that an
            earlier process stored is used, if there is one; a poll that fails uses it at once. More
            waits longer for the registry; less answers sooner, perhaps with a stale list.
        self_preservation: when a list that shrank is not believed, and its workers are probed;
            None believes every list.

    Raises:
        ConfigurationError: a value is out of range.
    """

    wait_s: float = 20.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 10.0
    polls_per_s: float = 5.0
    burst: int = 10
    stored_after_s: float = 1.0
    self_preservation: SelfPreservationConfig | None = field(default_factory=SelfPreservationConfig)

    def __post_init__(self) -> None:
        for name in ("wait_s", "backoff_base_s", "backoff_cap_s", "polls_per_s", "burst"):
            if not 0 < (value := getattr(self, name)) < inf:
                raise ConfigurationError(f"{name}={value}: use a number above 0")
        if not 0 <= self.stored_after_s < inf:
            raise ConfigurationError(f"stored_after_s={self.stored_after_s}: use 0 or more seconds")

    @property
    def deadline_s(self) -> float:
        """How long a poll may take: what Consul may (wait x 17/16), and 5 s for the network."""
        return self.wait_s * 17 / 16 + 5.0


class WatchRules:
    """The state of one watch: decides the delay before the next poll, and its index.

    Attributes:
        index: the index for the next poll.
        errors_in_a_row: how many polls have failed since the last one that succeeded.
    """

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._backoff = Backoff(base_s=config.backoff_base_s, cap_s=config.backoff_cap_s)
        self._tokens = float(config.burst)
        self._refilled_at: float | None = None
        self.index = 0
        self.errors_in_a_row = 0

    def answered(self, index: int, *, now: float) -> float:
        """Process a poll that succeeded with this index; return the seconds until the next one."""
        self.errors_in_a_row = 0
        index = max(1, index)
        self.index = 0 if index < self.index else index
        return self._pace(now)

    def failed(self, rng: Random) -> float:
        """Process a poll that failed; return the seconds until the next one, with full jitter."""
        self.index = 0
        self.errors_in_a_row += 1
        return self._backoff.delay_s(self.errors_in_a_row - 1, rng)

    def _pace(self, now: float) -> float:
        config = self._config
        elapsed = 0.0 if self._refilled_at is None else max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._tokens = min(float(config.burst), self._tokens + elapsed * config.polls_per_s) - 1
        return max(0.0, -self._tokens / config.polls_per_s)
