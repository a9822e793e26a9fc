"""What every registry can do: the seam between Fingerpost and Consul, ZooKeeper or a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry.address_policy import RejectedEntries
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.snapshot import Catalog, Snapshot
    from fingerpost.registry.watching.watch import Watch

__all__ = ["Registration", "Registry"]


class Registration(Protocol):
    """One instance's entry, kept alive in the background until `deregister`.

    If the registry forgets the entry, it is registered again with jittered back-off, except while
    it is draining. A registry failure is logged and retried; it never stops the worker.
    """

    @property
    def instance(self) -> Instance:
        """What was registered."""
        ...

    @property
    def reregistrations(self) -> int:
        """How often the registry had forgotten the entry, and got it again."""
        ...

    async def update(self, instance: Instance) -> None:
        """Replace what is registered by other facts about the same instance (id and service).

        It stays on the healthy list meanwhile, or off it where it is draining. From the call on,
        what is registered again is the new one, and where it raises, the background work goes on
        telling it.

        Raises `InvalidInstance` for another id or service, and `RegistryError`.
        """
        ...

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list, its entry staying. Raises `RegistryError`."""
        ...

    async def undrain(self) -> None:
        """Put it back on the healthy list. Raises `RegistryError`."""
        ...

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises `RegistryError` where the registry could not be told; the background work has ended
        all the same, and the registry's own check removes the entry later.
        """
        ...


class Registry(Protocol):
    """Where instances are recorded.

    All calls have a deadline of their own, and raise `RegistryUnreachable`, `RegistryDenied` or
    `RegistryError`; names and ids outside the allow-list raise `InvalidName` before any call.
    """

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> Registration:
        """Record the instance, and return once the registry has shown it to be there.

        `healthy` tells whether the instance can work now, where the registry cannot ask it itself;
        it is called often, and must not block.
        """
        ...

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The entries left out of every list, because they make no sense or are not let in."""
        ...

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain an instance that another process registered, or put it back (`reason` None).

        Raises:
            InvalidRequest: there is no such instance, or it cannot be drained from here.
            RegistryError: the registry could not be told.
        """
        ...

    async def list(self, service: str) -> Snapshot:
        """Resolve once: the healthy instances now. An unknown service gives `known=False`.

        This is the registry's list as it is; only a watch, which knows an older one, can doubt it.
        """
        ...

    async def catalog(self) -> Catalog:
        """The names of all Fingerpost services."""
        ...

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every caller of this registry shares the same one.

        Each call is one use of it, which `release` gives back.
        """
        ...

    def watch_catalog(self) -> Watch[Catalog]:
        """A started watch of the service names, shared likewise; it runs until `aclose`."""
        ...

    async def release(self, service: str) -> None:
        """Give one use of a service's watch back; the last one ends it, its view staying readable.

        Who never calls it loses nothing but a connection: `aclose` ends all watches. A service
        that nobody watches is no error.
        """
        ...

    async def aclose(self) -> None:
        """End all watches and registrations' background work.

        Entries stay in the registry, but for those that live only as long as the connection
        (ZooKeeper's).
        """
        ...
