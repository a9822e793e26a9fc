"""The resources that exist now, made anew only where something has changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fingerpost.errors import FingerpostError
from fingerpost.proxy.xds import resources
from fingerpost.proxy.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from fingerpost.proxy.xds.workers import Target, workers_of
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.probes import LoadProbes
    from fingerpost.proxy.xds.workers import Client, Workers
    from fingerpost.registry import Snapshot
    from fingerpost.security.tls import TlsConfig

__all__ = ["TYPES", "Resource", "XdsCatalog", "target_of"]

# In the order in which a client can use them: what names another one comes after it.
TYPES: Final = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
_HTTP: Final = "http/"
_ROUTES_NAME: Final = "fingerpost"
_MAX_CACHED: Final = 20_000


class Resource(NamedTuple):
    """A resource and its version, which is a digest of its content."""

    version: str
    packed: Any


def target_of(name: str) -> Target | None:
    """What a resource's name means; None where it cannot be one of a model."""
    transport = "http" if name.startswith(_HTTP) else "grpc"
    try:
        reference = ModelReference.parse(name.removeprefix(_HTTP))
    except FingerpostError:
        return None
    return Target(reference, transport)


class XdsCatalog:
    """Makes the resources of all clients from the proxy's snapshots and its probes.

    Args:
        directory: the snapshots.
        probes: which workers refuse connections, and which drain.
        tls: how this proxy connects to workers, and clients so do.
    """

    def __init__(self, directory: Directory, probes: LoadProbes, tls: TlsConfig) -> None:
        self._directory = directory
        self._probes = probes
        self._tls = tls
        self._made: dict[Hashable, Resource] = {}
        self._now: dict[Target, Workers] = {}

    def current(
        self, type_url: str, names: Iterable[str], client: Client, *, every: bool
    ) -> dict[str, Resource]:
        """The resources of a type that exist, by their names.

        Args:
            type_url: one of `TYPES`.
            names: the names that are wanted.
            client: who wants them. A model that it may not use does not exist for it.
            every: whether all are wanted: those of an Envoy, which are by HTTP.
        """
        if type_url == ROUTES:
            wanted = {*names, *((_ROUTES_NAME,) if every else ())}
            return {name: self._routes(client) for name in wanted if name == _ROUTES_NAME}
        found = {}
        targets = {name: target_of(name) for name in names}
        if every and type_url == CLUSTER:
            targets |= {each.cluster: each for each, _ in self._hosts(client)}
        for name, target in targets.items():
            made = None if target is None else self._of(type_url, target, client)
            if made is not None:
                found[name] = made
        return found

    def look_again(self) -> None:
        """Ask the snapshots and the probes again; in between, all clients are told the same."""
        self._now.clear()

    def state(self, name: str) -> Hashable:
        """Something that is another one when the workers behind a name are."""
        target = target_of(name)
        return None if target is None else self._workers(target)

    def models(self) -> Hashable:
        """Something that is another one when an Envoy has other routes."""
        return tuple((each.service, self._versions(each)) for each in self._directory.snapshots())

    def _of(self, type_url: str, target: Target, client: Client) -> Resource | None:
        if not client.may_use(target.reference.model):
            return None
        workers = self._workers(target)
        if workers is None:
            return None
        if type_url == LISTENER:
            return self._keep((type_url, target), lambda: resources.listener(target))
        if type_url == CLUSTER:
            names = workers.names if workers.tls else None
            certificate = client.certificate
            return self._keep(
                (type_url, target, names, certificate),
                lambda: resources.cluster(target, names, certificate=certificate),
            )
        key = (type_url, target, workers.all, client.zone)
        return self._keep(key, lambda: resources.endpoints(target, workers.all, client.zone))

    def _workers(self, target: Target) -> Workers | None:
        """The workers of a model; None where there is no such model, version or alias."""
        known = self._now.get(target)
        if known is not None:
            return known
        snapshot = self._directory.snapshot(target.reference.model)
        if snapshot is None:
            return None
        serving = snapshot.matching(target.reference)
        # A model that lost its workers is still one: its clients wait for the next.
        if not serving and snapshot.instances:
            return None
        accepting = self._probes.accepting_instances(serving)
        found = workers_of(target, accepting, self._probes.reports, self._tls)
        self._now[target] = found
        return found

    def _routes(self, client: Client) -> Resource:
        hosts = tuple(self._hosts(client))
        return self._keep((ROUTES, hosts), lambda: resources.routes(_ROUTES_NAME, hosts))

    def _hosts(self, client: Client) -> Iterable[tuple[Target, tuple[str, ...]]]:
        """The models for Envoys with the host names that mean them: `flowers`, `3.flowers`."""
        for snapshot in self._directory.snapshots():
            service = snapshot.service
            if not client.may_use(service):
                continue
            for reference, host in (
                (ModelReference(service), service),
                *(
                    (ModelReference.parse(f"{service}@{each}"), f"{each}.{service}")
                    for each in self._versions(snapshot)
                ),
            ):
                yield Target(reference, "http"), (host, f"{host}:*")

    @staticmethod
    def _versions(snapshot: Snapshot) -> tuple[str, ...]:
        """The versions and aliases of a service that some worker has."""
        models = [
            model
            for instance in snapshot.instances
            for model in instance.models
            if model.name == snapshot.service
        ]
        names = {each for model in models for each in (*model.versions, *model.aliases)}
        return tuple(sorted(names))

    def _keep(self, key: Hashable, make: Callable[[], Any]) -> Resource:
        known = self._made.get(key)
        if known is None:
            packed = make()
            digest = hashlib.sha256(packed.value).hexdigest()[:16]
            if len(self._made) >= _MAX_CACHED:
                self._made.clear()
            known = self._made[key] = Resource(digest, packed)
        return known
