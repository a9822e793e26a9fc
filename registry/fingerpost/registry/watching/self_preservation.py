"""When a registry's list is not believed, and what is in use then. Pure: no clock, no I/O.

A list of healthy instances leaves out instances that are not well, but also instances that the
registry can no longer observe. A Consul agent that is killed takes all its services off the list
5.3 s later, and one that restarts without its memory removes their entries, although the workers go
on serving. Rules:

1. An instance is **withdrawn** if the registry gives a reason that concerns the instance: its entry
   is there and in maintenance, or its worker itself reported to the check that it is not well, or
   the entry is rejected (see `Snapshot.withdrawn`). That applies at once, so drains, the hung
   engine of a live process and an operator's decision always take effect. An instance whose address
   another one has now is treated alike.
2. An instance has **vanished** if it leaves the list without such a reason: the entry is gone, its
   node's agent is unreachable, or a check got no answer. A deregistration is among them, because a
   catalog shows it exactly as it shows an agent that lost its memory. Workers that leave drain
   first (rule 1), and one that is deregistered by hand while it serves registers itself again
   within seconds.
3. If few vanish, the registry is believed: single workers do die, and the registry's check saw it.
4. The list is **suspicious** if it is empty, or if the instances that vanished within `window_s`
   are `min_vanished` or more and at least `min_vanished_share` of all. A window, because the agents
   of several machines that fail together are noticed some seconds apart, a few workers at a time.
5. During a suspicion all vanished instances are probed. Until it has answered, each stays as it
   was. One that is READY with its registered boot id is **retained**: it stays in use. One that is
   GONE (connection refused, another boot id, not READY, not a Fingerpost worker) is dropped. One
   that is UNRESPONSIVE (a timeout, a broken connection) is out of use and probed again, for
   `unresponsive_s`.
6. Retained and unresponsive instances are probed again every `probe_interval_s`, all together at
   most `max_probes_per_s`, so that a worker that dies meanwhile is dropped and a stalled one
   returns.
7. The suspicion ends when none of them is left: each is listed again, withdrawn or gone. It also
   ends after `max_duration_s`; then the registry is believed.
8. For `window_s` after a suspicion ended, or after the registry answered again, one instance that
   vanishes starts the next. An agent that comes back lists its services before their checks have
   run, and takes them off again one by one until they have.

Rejected: Eureka's self-preservation (no expiry at all below 85 % of the renewals) and Envoy's
panic mode (below 50 % all hosts are used, healthy or not). Both send requests to dead workers; a
worker can be probed in a millisecond instead.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.basics.renames import renamed_fields
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["ProbeResult", "SelfPreservation", "SelfPreservationConfig"]


@renamed_fields(
    least="min_vanished",
    fraction="min_vanished_share",
    ask_deadline_s="probe_timeout_s",
    recheck_s="probe_interval_s",
    asks_per_s="max_probes_per_s",
    silent_s="unresponsive_s",
    keep_s="max_duration_s",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfPreservationConfig:
    """When workers that vanished from a list are probed, and for how long.

    Attributes:
        min_vanished: this many must have vanished, unless none is left. More believes the registry
            more often; with 1, in a service of two, every worker that hangs stays in use for
            `probe_timeout_s` longer.
        min_vanished_share: the vanished must be at least this share of all, above 0 and at most 1.
            More believes the registry more often; a half is what one of two agents takes away.
        window_s: vanished workers count together for so long, in seconds. Agents killed together
            were noticed 5.3 to 6.4 s later each; more also counts unrelated failures together.
        probe_timeout_s: how long a worker may take to answer a probe, in seconds. A load report
            takes a millisecond, so that 0.5 is ample; with the check's own 1.4 s a stopped worker
            is out of use in 1.9 s. More spares workers on overloaded machines.
        probe_interval_s: pause between two probes of one worker, in seconds. Less notices sooner
            that a retained worker died.
        max_probes_per_s: bound on all probes after the first, for large services. More notices
            sooner that one of many retained workers died.
        unresponsive_s: for how long a worker that does not answer is probed again, in seconds. More
            takes back workers after longer interruptions.
        max_duration_s: the longest time without believing the registry, in seconds. An hour lets a
            person repair a dead agent; the bound is for a worker whose entry cannot be removed any
            more.

    Raises:
        ConfigurationError: a value is out of range.
    """

    min_vanished: int = 2
    min_vanished_share: float = 0.5
    window_s: float = 10.0
    probe_timeout_s: float = 0.5
    probe_interval_s: float = 1.0
    max_probes_per_s: float = 50.0
    unresponsive_s: float = 60.0
    max_duration_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.min_vanished < 1:
            raise ConfigurationError(f"min_vanished={self.min_vanished}: use 1 or more")
        if not 0 < self.min_vanished_share <= 1:
            raise ConfigurationError(
                f"min_vanished_share={self.min_vanished_share}: use a share above 0, at most 1"
            )
        for name in ("probe_timeout_s", "probe_interval_s", "max_probes_per_s", "max_duration_s"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigurationError(f"{name}={value}: use a number above 0")
        for name in ("window_s", "unresponsive_s"):
            if not (value := getattr(self, name)) >= 0:
                raise ConfigurationError(f"{name}={value}: use 0 or more seconds")


class ProbeResult(enum.Enum):
    """The result of probing a worker; see rule 5 of the module."""

    READY = "ready"
    GONE = "gone"
    UNRESPONSIVE = "unresponsive"


class _Vanished:
    """An instance that left the list without a reason.

    `due_at` is when to probe it, or None during a probe.
    """

    __slots__ = ("due_at", "in_use", "instance", "since", "unresponsive_since")

    def __init__(self, instance: Instance, now: float) -> None:
        self.instance = instance
        self.since = now
        self.in_use = False
        self.due_at: float | None = now
        self.unresponsive_since: float | None = None


class SelfPreservation:
    """Decides which instances of one service are in use, from lists and probes; see the module."""

    def __init__(self, config: SelfPreservationConfig) -> None:
        self._config = config
        self._listed: dict[str, Instance] = {}
        self._vanished: dict[str, _Vanished] = {}
        self._since: float | None = None
        self._unsettled_at: float | None = None

    @property
    def suspicious(self) -> bool:
        """Whether the last list is not believed."""
        return self._since is not None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances in use: the listed and the retained ones, sorted by id."""
        retained = {id_: each.instance for id_, each in self._vanished.items() if each.in_use}
        used = self._listed | retained
        return tuple(used[id_] for id_ in sorted(used))

    @property
    def retained(self) -> tuple[str, ...]:
        """The ids of instances in use that the registry does not list, sorted."""
        return tuple(sorted(id_ for id_, each in self._vanished.items() if each.in_use))

    def answers_again(self, now: float) -> None:
        """Call before `update` with the first list after polls that failed (rule 8)."""
        self._unsettled_at = now

    def update(
        self, instances: Iterable[Instance], withdrawn: Iterable[str], *, now: float
    ) -> None:
        """Process a new list: the healthy instances, and the ids of withdrawn ones (rule 1)."""
        listed = {each.id: each for each in instances}
        addresses = {each.address for each in listed.values()}
        explained = listed.keys() | set(withdrawn)
        new = [
            _Vanished(each, now)
            for each in self._listed.values()
            if each.id not in explained and each.address not in addresses
        ]
        self._vanished = {
            id_: each
            for id_, each in self._vanished.items()
            if id_ not in explained
            and each.instance.address not in addresses
            and (self.suspicious or now - each.since <= self._config.window_s)
        } | {each.instance.id: each for each in new}
        self._listed = listed
        if not self.suspicious and self._is_suspicious(now):
            self._since = now
        for each in new:
            each.in_use = self.suspicious
        self._end_if_settled(now)

    def due(self, now: float) -> tuple[Instance, ...]:
        """The instances to probe now; each is due again only after `probed`."""
        self._end_if_settled(now)
        if not self.suspicious:
            return ()
        due = [each for each in self._vanished.values() if each.due_at is not None]
        due = [each for each in due if each.due_at is not None and each.due_at <= now]
        for each in due:
            each.due_at = None
        return tuple(each.instance for each in due)

    def next_due_at(self) -> float | None:
        """When to call `due` again, unless `update` or `probed` is called before; None: never."""
        if self._since is None:
            return None
        times = [each.due_at for each in self._vanished.values() if each.due_at is not None]
        return min([*times, self._since + self._config.max_duration_s])

    def restart(self, now: float) -> None:
        """Probes under way were cancelled: make their instances due again."""
        for each in self._vanished.values():
            if each.due_at is None:
                each.due_at = now

    def probed(self, instance: Instance, result: ProbeResult, *, now: float) -> None:
        """Process the probe of an instance that was due; ignored if it is listed again."""
        each = self._vanished.get(instance.id)
        if each is None or each.instance is not instance:
            return
        pause_s = max(
            self._config.probe_interval_s, len(self._vanished) / self._config.max_probes_per_s
        )
        each.due_at = now + pause_s
        each.in_use = result is ProbeResult.READY
        if result is not ProbeResult.UNRESPONSIVE:
            each.unresponsive_since = None
        elif each.unresponsive_since is None:
            each.unresponsive_since = now
        if result is ProbeResult.GONE or (
            each.unresponsive_since is not None
            and now - each.unresponsive_since > self._config.unresponsive_s
        ):
            del self._vanished[instance.id]
        self._end_if_settled(now)

    def _is_suspicious(self, now: float) -> bool:
        config = self._config
        gone, left = len(self._vanished), len(self._listed)
        since = self._unsettled_at
        unsettled = since is not None and now - since <= config.window_s
        if gone and (unsettled or not left):
            return True
        return gone >= config.min_vanished and gone >= config.min_vanished_share * (gone + left)

    def _end_if_settled(self, now: float) -> None:
        """End the suspicion by rule 7."""
        if self._since is None:
            return
        if now - self._since >= self._config.max_duration_s:
            self._vanished.clear()
        if not self._vanished:
            self._since = None
            self._unsettled_at = now
