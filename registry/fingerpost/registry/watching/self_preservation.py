"""When a registry's list is not believed, and what is in use meanwhile. Pure: no clock, no sockets.

A registry says two things with one list: who is not well, and whom it has lost sight of. A Consul
agent that is killed takes all its services off the list 5.3 s later, and one that restarts without
its memory removes their entries, though the workers go on serving. Rules:

1. **A word about an instance** applies at once. It is *withdrawn* if its entry is there and in
   maintenance, or its worker itself told the check that it is not well, or the entry is refused
   (see `withdrawn_ids`). So drains, the hung engine of a live process and an operator's own hand
   are never second-guessed. Nor is an instance whose address another one has now.
2. **Vanished** is who leaves the list without such a word: the entry is gone, its node's agent is
   unreachable, a check got no answer. A deregistration is among them, because a catalog shows it
   exactly as it shows an agent that lost its memory. Workers that leave drain first (rule 1), and
   one that is deregistered by hand while it serves registers itself again within seconds.
3. A few that vanish are believed gone: single workers do die, and the registry's check saw it.
4. It is **suspicious** if nobody is left, or if those that vanished within `window_s` are
   `min_vanished` or more and at least `min_vanished_share` of all. A window, because the agents of
   several machines that fail together are noticed up to some seconds apart, a few workers at a
   time.
5. Under suspicion all that vanished are asked themselves. Until it has answered, each stays as it
   was. One that is READY with its registered boot id is *retained*; one that is gone (refused,
   another boot id, not READY, no worker of ours) is dropped for good; one that is silent (a
   timeout, a broken connection) is out of use and asked again, for `unresponsive_s`.
6. Retained and silent ones are asked again every `probe_interval_s`, all together at most
   `max_probes_per_s`, so that a worker that dies meanwhile is dropped and a stalled one returns.
7. The suspicion ends when none of them is left: listed again, withdrawn, or gone. Or after
   `max_duration_s`: then the registry is believed.
8. For `window_s` after a suspicion ended, one that vanishes is enough for the next. An agent that
   comes back lists its services before their checks have run, and takes them off again one by
   one until they have.

Rejected: Eureka's self-preservation (no expiry at all below 85 % of the renewals) and Envoy's
panic mode (below 50 % all hosts are used, well or not). Both send requests to dead workers; a
worker that can be asked in a millisecond need not be guessed at.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError, RegistryError
from fingerpost.registry.renames import renamed_fields

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["ProbeResult", "SelfPreservation", "SelfPreservationConfig", "withdrawn_ids"]


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
            person repair a dead agent; the bound is for a worker whose entry nobody can remove any
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
    """What came of asking a worker: rule 5."""

    READY = "ready"
    GONE = "gone"
    UNRESPONSIVE = "unresponsive"


class _Vanished:
    """An instance that left the list without a word.

    `due_at` is when to ask it, or None while it is being asked.
    """

    __slots__ = ("due_at", "in_use", "instance", "silent_since", "since")

    def __init__(self, instance: Instance, now: float) -> None:
        self.instance = instance
        self.since = now
        self.in_use = False
        self.due_at: float | None = now
        self.silent_since: float | None = None


class SelfPreservation:
    """What is in use of one service, given what the registry and the workers say."""

    def __init__(self, config: SelfPreservationConfig) -> None:
        self._config = config
        self._listed: dict[str, Instance] = {}
        self._vanished: dict[str, _Vanished] = {}
        self._since: float | None = None
        self._ended_at: float | None = None

    @property
    def suspicious(self) -> bool:
        """Whether the last list is in doubt."""
        return self._since is not None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All in use: the listed and the retained ones, sorted by id."""
        retained = {id_: each.instance for id_, each in self._vanished.items() if each.in_use}
        used = self._listed | retained
        return tuple(used[id_] for id_ in sorted(used))

    @property
    def retained(self) -> tuple[str, ...]:
        """The ids of those in use that the registry does not list, sorted."""
        return tuple(sorted(id_ for id_, each in self._vanished.items() if each.in_use))

    def registry_said(
        self, instances: Iterable[Instance], withdrawn: Iterable[str], *, now: float
    ) -> None:
        """Take a list of healthy instances, and the ids about which there is a word (rule 1)."""
        listed = {each.id: each for each in instances}
        addresses = {each.address for each in listed.values()}
        told = listed.keys() | set(withdrawn)
        new = [
            _Vanished(each, now)
            for each in self._listed.values()
            if each.id not in told and each.address not in addresses
        ]
        self._vanished = {
            id_: each
            for id_, each in self._vanished.items()
            if id_ not in told
            and each.instance.address not in addresses
            and (self.suspicious or now - each.since <= self._config.window_s)
        } | {each.instance.id: each for each in new}
        self._listed = listed
        if not self.suspicious and self._is_suspicious(now):
            self._since = now
        for each in new:
            each.in_use = self.suspicious
        self._settle(now)

    def due(self, now: float) -> tuple[Instance, ...]:
        """Whom to ask now; each is told of once, and again only after its answer."""
        self._settle(now)
        if not self.suspicious:
            return ()
        due = [each for each in self._vanished.values() if each.due_at is not None]
        due = [each for each in due if each.due_at is not None and each.due_at <= now]
        for each in due:
            each.due_at = None
        return tuple(each.instance for each in due)

    def next_due_at(self) -> float | None:
        """When `due` should be called again, unless something is said before."""
        if self._since is None:
            return None
        times = [each.due_at for each in self._vanished.values() if each.due_at is not None]
        return min([*times, self._since + self._config.max_duration_s])

    def restart(self, now: float) -> None:
        """Whoever was asked will not be heard of: ask them again."""
        for each in self._vanished.values():
            if each.due_at is None:
                each.due_at = now

    def worker_said(self, instance: Instance, word: ProbeResult, *, now: float) -> None:
        """Take the answer of a worker that `due` told of; of one listed again it is passed over."""
        each = self._vanished.get(instance.id)
        if each is None or each.instance is not instance:
            return
        pause_s = max(
            self._config.probe_interval_s, len(self._vanished) / self._config.max_probes_per_s
        )
        each.due_at = now + pause_s
        each.in_use = word is ProbeResult.READY
        if word is not ProbeResult.UNRESPONSIVE:
            each.silent_since = None
        elif each.silent_since is None:
            each.silent_since = now
        if word is ProbeResult.GONE or (
            each.silent_since is not None and now - each.silent_since > self._config.unresponsive_s
        ):
            del self._vanished[instance.id]
        self._settle(now)

    def _is_suspicious(self, now: float) -> bool:
        gone, left = len(self._vanished), len(self._listed)
        warned = self._ended_at is not None and now - self._ended_at <= self._config.window_s
        if gone and (warned or not left):
            return True
        return gone >= self._config.min_vanished and gone >= self._config.min_vanished_share * (
            gone + left
        )

    def _settle(self, now: float) -> None:
        """End the suspicion where it is over (rule 7)."""
        if self._since is None:
            return
        if now - self._since >= self._config.max_duration_s:
            self._vanished.clear()
        if not self._vanished:
            self._since = None
            self._ended_at = now


# What Consul says of an entry, beyond whether all its checks pass.

# A check over HTTP that got an answer writes "HTTP GET http://...: 503 Service Unavailable Output:
# ..."; one that got none writes the error: 'Get "http://...": dial tcp ...: connection refused'.
# A TTL check that ran out writes "TTL expired"; else it has what the worker reported.
# (agent/checks/check.go; read off Consul 1.8.7. The embedded registry writes the same.)
_ANSWERED: Final = re.compile(r"HTTP [A-Z]+ \S+: [0-9]{3}\b")
_EXPIRED: Final = "TTL expired"
_MAINTENANCE: Final = ("_service_maintenance:", "_node_maintenance")


class _Check(msgspec.Struct, rename="pascal"):
    check_id: str = msgspec.field(name="CheckID")
    status: str
    type: str = ""
    output: str = ""

    @property
    def is_a_word(self) -> bool:
        """Whether a check that fails tells something about the worker (rule 1)."""
        if self.status == "passing":
            return False
        if self.check_id.startswith(_MAINTENANCE):
            return True
        if self.type == "ttl":
            return not self.output.startswith(_EXPIRED)
        return _ANSWERED.match(self.output) is not None


class _Service(msgspec.Struct):
    id: str = msgspec.field(name="ID")


class _Entry(msgspec.Struct, rename="pascal"):
    service: _Service
    checks: list[_Check]


def withdrawn_ids(body: bytes) -> tuple[str, ...]:
    """The ids that the answer of `/v1/health/service/NAME` has a word about (rule 1), sorted.

    Those are the entries in maintenance (their own or their node's), and those whose worker itself
    told a check that it is not well: over HTTP by a status, over TTL by its report. An entry that
    cannot be read is passed over; `decode_entries` refuses it.

    Raises:
        RegistryError: the answer as a whole is no JSON list.
    """
    try:
        raw_entries = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"the registry's answer is no JSON list: {body[:100]!r}") from error
    withdrawn: set[str] = set()
    for raw in raw_entries:
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if any(check.is_a_word for check in entry.checks):
            withdrawn.add(entry.service.id)
    return tuple(sorted(withdrawn))
