"""What every registry can do: the seam between Fingerpost and Consul, ZooKeeper or a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.snapshot import Catalog, Snapshot
    from fingerpost.registry.watch import Watch

__all__ = ["Registration", "Registry"]


class Registration(Protocol):
    """One instance's entry, kept alive in the background until `deregister`.

    If the registry forgets the entry, it is registered again with jittered back-off, except while
    it is draining. A registry failure is logged and retried; it never stops the worker.
    """

    @property
    def instance(self) -> Instance:
        """What was registered."""

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list, its entry staying. Raises `RegistryError`."""

    async def undrain(self) -> None:
        """Put it back on the healthy list. Raises `RegistryError`."""

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises `RegistryError` where the registry could not be told; the background work has ended
        all the same, and the registry's own check removes the entry later.
        """


class Registry(Protocol):
    """Where instances are recorded.

    All calls have a deadline of their own, and raise `RegistryUnreachable`, `RegistryDenied` or
    `RegistryError`; names and ids outside the allow-list raise `InvalidName` before any call.
    """

    async def register(self, instance: Instance) -> Registration:
        """Record the instance, and return once the registry has shown it to be there."""

    async def list(self, service: str) -> Snapshot:
        """Resolve once: the healthy instances now. An unknown service gives `known=False`."""

    async def catalog(self) -> Catalog:
        """The names of all Fingerpost services."""

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every caller of this registry shares the same one."""

    def watch_catalog(self) -> Watch[Catalog]:
        """A started watch of the service names, shared likewise."""

    async def aclose(self) -> None:
        """End all watches and registrations' background work; entries stay in the registry."""
