"""The interface of every registry: Consul, ZooKeeper, a fixed list, or one in a test."""

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
    """One instance's entry in a registry, kept alive in the background until `deregister`.

    If the registry loses the entry, it is registered again with jittered back-off, except while it
    is draining. A failure of the registry is logged and retried; it never stops the worker.
    """

    @property
    def instance(self) -> Instance:
        """The instance as registered."""
        ...

    @property
    def reregistrations(self) -> int:
        """How often the registry had lost the entry, so that it was registered again."""
        ...

    async def update(self, instance: Instance) -> None:
        """Replace what is registered by other data of the same instance (id and service).

        Meanwhile it stays on the healthy list, or off it where it is draining. From the call on,
        a re-registration uses the new data. Where the call raises `RegistryError`, the background
        work goes on trying to write them.

        Raises `InvalidInstance` for another id or service, and `RegistryError`.
        """
        ...

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list; its entry stays. Raises `RegistryError`."""
        ...

    async def undrain(self) -> None:
        """Put it back on the healthy list. Raises `RegistryError`."""
        ...

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises `RegistryError` where the call to the registry fails; the background work has ended
        all the same, and the registry's own check removes the entry later.
        """
        ...


class Registry(Protocol):
    """A registry of instances.

    All calls have a deadline of their own, and raise `RegistryUnreachable`, `RegistryDenied` or
    `RegistryError`; names and ids that are not valid raise `InvalidName` before any call.
    """

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> Registration:
        """Record the instance, and return once the registry lists it.

        `healthy` returns whether the instance can work now, for a registry that does not check it
        itself; it is called often, and must not block.
        """
        ...

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The entries left out of every list, because they are malformed or not allowed."""
        ...

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain an instance that another process registered, or put it back (`reason` None).

        `instance_id` may be a `HOST:PORT` too: that is every instance at this address.

        Raises:
            InvalidRequest: there is no such instance, or it cannot be drained from here.
            RegistryError: the call to the registry failed.
        """
        ...

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove the entries of processes that had this instance's address before.

        These have the same host and port and another boot id, whatever their service. The caller
        has made sure that it has the address itself. Entries that this process may not remove stay,
        and fail their checks.

        Returns the ids of the removed entries. Raises `RegistryError`.
        """
        ...

    async def list(self, service: str) -> Snapshot:
        """Resolve once: the healthy instances now. An unknown service gives `known=False`.

        This is the registry's list as it is; only a watch, which knows an older one, can decide not
        to believe it.
        """
        ...

    async def catalog(self) -> Catalog:
        """The names of all Fingerpost services."""
        ...

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every caller of this registry shares the same one.

        Each call counts as one use of it; end each use by `release`.
        """
        ...

    def watch_catalog(self) -> Watch[Catalog]:
        """A started watch of the service names, shared by all callers; it runs until `aclose`."""
        ...

    async def release(self, service: str) -> None:
        """End one use of a service's watch; the last one ends the watch, whose view stays readable.

        Without this call the watch only holds a connection until `aclose`, which ends all watches.
        A service that is not watched is not an error.
        """
        ...

    async def document(self, name: str) -> bytes | None:
        """A small document that was published beside the instances; None if there is none.

        Raises `RegistryError`: an error is not a missing document.
        """
        ...

    async def publish(self, name: str, content: bytes) -> None:
        """Write a document of at most 64 KB, in place of the one before.

        The embedded registry forgets it when it ends. Raises `RegistryError`, and
        `ConfigurationError` for content that is too long, or a registry that cannot be written to.
        """
        ...

    async def aclose(self) -> None:
        """End all watches and registrations' background work.

        Entries stay in the registry, but for those that live only as long as the connection
        (ZooKeeper's).
        """
        ...
