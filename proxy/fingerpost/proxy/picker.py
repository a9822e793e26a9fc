"""Which worker the proxy names next."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from fingerpost.client.routing import RoundRobin
from fingerpost.errors import NoWorker, UnknownModel
from fingerpost.proxy.answers import RETRY_AFTER_S, service_entry
from fingerpost.registry import Instance, ModelReference, Snapshot

if TYPE_CHECKING:
    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.probes import LoadProbes

__all__ = ["WorkerPicker", "matching"]


_MAX_TURNS: Final = 1000


class WorkerPicker:
    """Picks the workers of each model in turn, without those that refuse connections.

    Args:
        directory: the snapshots to pick from.
        probes: knows which workers refuse connections.
    """

    def __init__(self, directory: Directory, probes: LoadProbes) -> None:
        self._directory = directory
        self._probes = probes
        self._turns: dict[ModelReference, RoundRobin] = {}
        self._rng = random.Random()

    def default_from_memory(self) -> Instance | None:
        """The next worker of the default service; the one decision behind `GET /`.

        None where the answer is not in memory or is an error, which `pick` raises.
        """
        service = self._directory.default_service
        snapshot = None if service is None else self._directory.snapshot(service)
        if service is None or snapshot is None or not snapshot.instances:
            return None
        try:
            return self._next(snapshot.instances, ModelReference(service))
        except NoWorker:
            return None

    async def pick(self, reference: ModelReference) -> Instance:
        """The next worker of a model. Raises as `Directory.resolve` and `matching` do."""
        snapshot = self._directory.snapshot(reference.model)
        if snapshot is None:
            snapshot = await self._directory.resolve(reference.model)
        return self._next(matching(snapshot, reference), reference)

    async def candidates(self, reference: ModelReference) -> list[Instance]:
        """All workers of a model: the next in turn, then the others in random order.

        Raises as `Directory.resolve` and `matching` do.
        """
        first = await self.pick(reference)
        snapshot = await self._directory.resolve(reference.model)
        others = [each for each in matching(snapshot, reference) if each is not first]
        self._rng.shuffle(others)
        return [first, *others]

    def _next(self, instances: tuple[Instance, ...], reference: ModelReference) -> Instance:
        turn = self._turns.get(reference)
        if turn is None:
            # Only references that exist are remembered; but services come and go.
            if len(self._turns) >= _MAX_TURNS:
                self._turns.clear()
            turn = self._turns[reference] = RoundRobin()
        accepting = self._probes.accepting_instances(instances)
        if not accepting:
            raise NoWorker(
                f"no worker of {reference.model!r} has a certificate that is accepted (--tls-ca)",
                retry_after_s=RETRY_AFTER_S,
            )
        return turn.pick(accepting, 0.0, self._rng)


def matching(snapshot: Snapshot, reference: ModelReference) -> tuple[Instance, ...]:
    """The instances of a service that serve the version or alias asked for; one or more.

    Raises:
        NoWorker: the service has no healthy instance.
        UnknownModel: it has, but none with that version or alias.
    """
    instances = snapshot.matching(reference)
    if instances:
        return instances
    if snapshot.instances:
        entry = service_entry(snapshot, 0.0)
        known = ", ".join([*entry.versions, *entry.aliases]) or "no known version"
        raise UnknownModel(f"no worker serves {reference}; there is {known}")
    raise NoWorker(
        f"no healthy worker serves {snapshot.service!r} now: try again in a second",
        retry_after_s=RETRY_AFTER_S,
    )
