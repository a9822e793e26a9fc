"""What images are told apart by: their tenant and their priority class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError, Forbidden, InvalidRequest
from fingerpost.security.caller import BATCH, DEFAULT_TENANT, INTERACTIVE
from fingerpost.security.grant import NO_LIMITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.security.grant import Grant

__all__ = ["DEFAULT_CLASSES", "DEFAULT_FLOW", "Flow", "Flows", "PriorityClass", "parse_classes"]

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
# Far more tenants than one worker serves at a time; the oldest are forgotten.
_MAX_FLOWS: Final = 4096
# Items that a flow which takes less than its share may send at once, ahead of the others. Simulated
# with ten tenants, the others' p99 at 0, 8, 16 and 32 is 68, 59, 58 and 59 ms.
_BURST: Final = 16.0


class Flow:
    """The images of one tenant in one priority class. There is one object for each, see `Flows`.

    Attributes:
        tenant: whom the work is counted for.
        rank: of the class, 0 for the one that goes first.
        weight: the tenant's share, relative to other tenants in the class; above 0.
        burst: how far it may lag behind the others, in items over its weight: see `FairOrder`.
    """

    __slots__ = ("burst", "rank", "tenant", "weight")

    def __init__(self, tenant: str, rank: int = 0, weight: float = 1.0) -> None:
        self.tenant = tenant
        self.rank = rank
        self.weight = weight
        self.burst = _BURST / weight

    def __repr__(self) -> str:
        return f"Flow({self.tenant!r}, rank={self.rank}, weight={self.weight:g})"


# Of all images, where no lease is required and no class is named.
DEFAULT_FLOW: Final = Flow(DEFAULT_TENANT)


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A priority class of a worker.

    Attributes:
        name: as requests name it.
        floor: the least share of the images, while it has any that wait; the first class has none.
    """

    name: str
    floor: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}:{self.floor:g}" if self.floor else self.name


# A twentieth keeps a batch job moving beside a worker full of interactive work, and takes little.
DEFAULT_CLASSES: Final = (PriorityClass(INTERACTIVE), PriorityClass(BATCH, 0.05))


def parse_classes(text: str) -> tuple[PriorityClass, ...]:
    """Read classes with their floors, the first to be served first: `interactive,batch:0.05`.

    Raises:
        ConfigurationError: a name is not valid or there twice; a floor is not a share, the first
            class has one, or all floors together leave the first class nothing.
    """
    found: list[PriorityClass] = []
    for part in text.split(","):
        name, _, floor_text = part.strip().partition(":")
        try:
            floor = float(floor_text or 0.0)
        except ValueError:
            floor = -1.0
        if not 0.0 <= floor < 1.0:
            raise ConfigurationError(
                f"classes {text!r}: the floor {floor_text!r} is not a share from 0 to below 1"
            )
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"classes {text!r}: {name!r} is not a valid class: use lower-case letters, digits "
                "and hyphens, starting with a letter"
            )
        found.append(PriorityClass(name, floor))
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"classes {text!r}: a name is there twice")
    if found[0].floor:
        raise ConfigurationError(
            f"classes {text!r}: the first class goes before all others and has no floor"
        )
    if sum(each.floor for each in found) >= 1.0:
        raise ConfigurationError(f"classes {text!r}: the floors add up to 1 or more")
    return tuple(found)


class Flows:
    """The flows of one process, by grant and class.

    Args:
        classes: of this worker, the one that goes first before the others.
    """

    def __init__(self, classes: Sequence[PriorityClass] = DEFAULT_CLASSES) -> None:
        self.names: tuple[str, ...] = tuple(each.name for each in classes)
        self._ranks = {name: rank for rank, name in enumerate(self.names)}
        self._flows: dict[tuple[str, int], Flow] = {}

    def of(self, grant: Grant, name: str | None) -> Flow:
        """The flow of a request. Raises the errors of `key`.

        Args:
            grant: what its tenant may do here.
            name: the class that it names; None for the first one that the tenant may use.
        """
        if name is None and grant is NO_LIMITS:
            return DEFAULT_FLOW
        return self.at(self.key(grant, name), grant)

    def key(self, grant: Grant, name: str | None) -> tuple[str, int]:
        """Tenant and rank of the flow of a request; the arguments are those of `of`.

        Raises:
            InvalidRequest: this worker has no such class.
            Forbidden: the tenant may not use it.
        """
        if name is None:
            known = [each for each in grant.classes or () if each in self._ranks]
            rank = self._ranks[known[0]] if known else 0
            if grant.classes is not None and not known:
                raise Forbidden(
                    f"tenant {grant.tenant!r} may use the classes "
                    f"{', '.join(grant.classes) or '(none)'}, and this worker has "
                    f"{', '.join(self.names)}: start it with --classes to match"
                )
        else:
            found = self._ranks.get(name)
            if found is None:
                raise InvalidRequest(
                    f"class {name[:64]!r} is not known here: use one of {', '.join(self.names)}"
                )
            if grant.classes is not None and name not in grant.classes:
                raise Forbidden(
                    f"tenant {grant.tenant!r} may not use class {name!r}: it may use "
                    f"{', '.join(grant.classes) or '(none)'}"
                )
            rank = found
        return (grant.tenant, rank)

    def at(self, key: tuple[str, int], grant: Grant) -> Flow:
        """The flow of a `key`, with the weight of a grant."""
        flow = self._flows.get(key)
        if flow is not None and flow.weight == grant.weight:
            return flow
        tenant, rank = key
        if flow is None and len(self._flows) >= _MAX_FLOWS:
            del self._flows[next(iter(self._flows))]
        plain = flow is None and rank == 0 and tenant == DEFAULT_TENANT and grant.weight == 1.0
        flow = self._flows[key] = DEFAULT_FLOW if plain else Flow(tenant, rank, grant.weight)
        return flow
