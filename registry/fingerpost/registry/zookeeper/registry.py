"""ZooKeeper as the registry: ephemeral nodes, through kazoo."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.deadline import deadline
from fingerpost.basics.renames import renamed_arguments
from fingerpost.errors import ConfigurationError, InvalidRequest
from fingerpost.registry.address_policy import (
    AddressPolicy,
    RejectedEntries,
    Rejection,
    RejectionReason,
)
from fingerpost.registry.documents import check_document
from fingerpost.registry.engine_check import HttpCheckConfig
from fingerpost.registry.names import check_id_or_address, check_service, is_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.service_watch import ServiceWatch, Store
from fingerpost.registry.watching.shared import WatchingRegistry
from fingerpost.registry.watching.signatures import EntrySignatures, entry_rejection
from fingerpost.registry.watching.watch import Poll, V, Watch
from fingerpost.registry.zookeeper.codec import read_service, sort_children
from fingerpost.registry.zookeeper.entries import KnownNodes, ZooKeeperEntries
from fingerpost.registry.zookeeper.registration import ZooKeeperRegistration
from fingerpost.registry.zookeeper.session import ZooKeeperSession
from fingerpost.registry.zookeeper.url import ZooKeeperAddress

if TYPE_CHECKING:
    import builtins

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.watching.liveness import LivenessProbe
    from fingerpost.security.tls import TlsConfig

__all__ = ["ZooKeeperRegistry"]

logger = logging.getLogger(__name__)

_CHECK: Final = HttpCheckConfig()
# All watches share one connection; this only bounds the cost of a caller that asks for any name.
MAX_WATCHES: Final = 1000


class ZooKeeperRegistry(WatchingRegistry):
    """`Registry` on a ZooKeeper ensemble: an ephemeral node for each instance.

    The nodes are described in `codec`. Reads are answered by the server that this process is
    connected to, which may be some milliseconds behind its leader, but never goes back.

    Three things differ from Consul:

    - A **killed or stopped** worker is taken off the list when its session expires,
      `session_timeout_s` after its last heartbeat, not within a second: only the worker itself
      checks its health. Clients eject it themselves during that time.
    - An engine that **stalls** while its process lives is taken off the list by the worker itself:
      see `check`.
    - `aclose` ends the session, and **removes all entries** with it.

    A watch does not poll: it waits for ZooKeeper's watches on the list and each of its nodes. It
    also reads again every `watch_config.wait_s`, which keeps the view's age low.

    An entry that is malformed or not allowed by the address policy is left out, logged once, and
    counted in `rejected`.

    Args:
        url: `zookeeper://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PATH`; port 2181 and path
            `/fingerpost` by default.
        auth: `USER:PASSWORD` for the scheme `digest`, instead of in the URL, which others on the
            machine may see. With it, the nodes written here can be changed by that user only, and
            read by everybody.
        session_timeout_s: after this time without a heartbeat ZooKeeper drops the entries. More
            leaves dead workers on the list for longer; less turns a slow network into many
            re-registrations. Of the default, kazoo uses two thirds to notice a silent server, which
            leaves 2 s to find another. Below 4 s (two ticks of 2 s) a server needs another
            configuration.
        call_timeout_s: each call's deadline. More tolerates a slower ensemble; less fails sooner.
        keep_alive_s: how often a registration checks that its node is there, in addition to every
            reconnection.
        watch_config: see `WatchConfig`.
        check_config: see `HttpCheckConfig`; with None only the session decides.
        address_policy: which addresses are allowed; see `AddressPolicy`.
        signatures: which signatures are believed; None asks for none.
        store: where snapshots are kept across restarts; None keeps none. `aclose` closes it.
        tls: see `RegistryConfig.workers_tls`.

    Raises:
        ConfigurationError: the URL is not valid, a duration is not positive, or kazoo is not
            installed.
    """

    @renamed_arguments(
        "ZooKeeperRegistry",
        watch="watch_config",
        check="check_config",
        admission="address_policy",
    )
    def __init__(
        self,
        url: str = "zookeeper://127.0.0.1:2181/fingerpost",
        *,
        auth: str | None = None,
        session_timeout_s: float = 6.0,
        call_timeout_s: float = 3.0,
        keep_alive_s: float = 2.0,
        watch_config: WatchConfig | None = None,
        check_config: HttpCheckConfig | None = _CHECK,
        address_policy: AddressPolicy | None = None,
        signatures: EntrySignatures | None = None,
        store: Store | None = None,
        tls: TlsConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        if min(session_timeout_s, call_timeout_s, keep_alive_s) <= 0:
            raise ConfigurationError(
                f"session_timeout_s={session_timeout_s}, call_timeout_s={call_timeout_s} and "
                f"keep_alive_s={keep_alive_s} must be above 0"
            )
        self._address = ZooKeeperAddress.parse(url, auth=auth)
        self._session = ZooKeeperSession(
            self._address, timeout_s=session_timeout_s, call_timeout_s=call_timeout_s
        )
        self._entries = ZooKeeperEntries(
            self._session, self._address.root, call_timeout_s=call_timeout_s
        )
        self._call_timeout_s = call_timeout_s
        self._keep_alive_s = keep_alive_s
        self._watch_config = watch_config or WatchConfig()
        self._check_config = check_config
        self._clock = clock
        self._rng = rng or random.Random()
        self._registrations: list[ZooKeeperRegistration] = []
        self._address_policy = address_policy or AddressPolicy()
        self._signatures = signatures
        self._store = store
        self._tls = tls
        preserving = self._watch_config.self_preservation
        self._probe_timeout_s = preserving.probe_timeout_s if preserving else None
        self._liveness: LivenessProbe | None = None
        super().__init__(max_watches=MAX_WATCHES)
        self.rejected_entries = RejectedEntries()

    @property
    def url(self) -> str:
        """The registry's URL, without a credential."""
        return self._address.url

    @property
    def rejected(self) -> int:
        """The number of rejected entries so far; `rejected_entries` has it by reason."""
        return self.rejected_entries.total

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> ZooKeeperRegistration:
        """Record the instance; returns once it was read back. See `Registry.register`.

        `healthy` is not used: the worker's own check over HTTP has the same result.

        Raises:
            InvalidInstance: it does not fit into a node.
            RegistryError: not confirmed; a node that may have been written is removed again.
        """
        await self._entries.put(instance)
        registration = ZooKeeperRegistration(
            self._session,
            self._entries,
            instance,
            check=self._check_config,
            tls=self._tls,
            interval_s=self._keep_alive_s,
            call_timeout_s=self._call_timeout_s,
            rng=self._rng,
        ).start()
        self._registrations.append(registration)
        return registration

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain any instances, or put them back; it holds until changed.

        See `Registry.set_draining`.

        Raises:
            InvalidRequest: there is no such instance.
            RegistryError: the call to the registry failed.
        """
        check_id_or_address(instance_id)
        if ":" in instance_id:
            found = await self._at(instance_id)
        else:
            service = await self._entries.find(instance_id)
            found = [] if service is None else [(service, instance_id)]
        if not found:
            raise InvalidRequest(
                f"no instance {instance_id!r} at {self.url}; `fingerpost status` lists them"
            )
        for service, each in found:
            if reason is not None:
                await self._entries.drain(service, each, reason)
            else:
                await self._entries.undrain(service, each)

    async def _at(self, address: str) -> builtins.list[tuple[str, str]]:
        """Service and id of every instance at `host:port`, healthy or not."""
        found = []
        for service in (await self.catalog()).services:
            async with deadline(self._call_timeout_s, f"reading {service} at {self.url}"):
                children, _, nodes = await self._entries.read(service)
            instances, _ = read_service(service, children, nodes)
            found += [(service, each.id) for each in instances if each.address == address]
        return found

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove entries whose sessions have not expired yet. See `Registry.remove_stale`."""
        return await self._entries.remove_stale(instance)

    async def list(self, service: str) -> Snapshot:
        """Resolve once. See `Registry.list`."""
        check_service(service)
        snapshot, _ = await self._read_service(service, None)
        return snapshot

    async def catalog(self) -> Catalog:
        """The names of all services with an entry. See `Registry.catalog`."""
        catalog, _ = await self._read_catalog(None)
        return catalog

    async def document(self, name: str) -> bytes | None:
        """See `Registry.document`; a node below `_documents`, which is not a service's name."""
        path = self._document_path(check_document(name))
        async with deadline(self._call_timeout_s, f"reading {path} at {self.url}"):
            try:
                content, _ = await self._session.call("get", path)
            except Exception as error:
                if not self._session.no_node(error):
                    raise
                return None
        return bytes(content)

    async def publish(self, name: str, content: bytes) -> None:
        """See `Registry.publish`."""
        path = self._document_path(check_document(name, content))
        async with deadline(self._call_timeout_s, f"writing {path} at {self.url}"):
            with self._session.expected("NodeExistsError"):
                await self._session.call("create", path, b"", makepath=True)
            await self._session.call("set", path, content)

    def _document_path(self, name: str) -> str:
        return f"{self._address.root}/_documents/{name}"

    async def aclose(self) -> None:
        """End all background work, and the session with all entries; stops all threads."""
        for registration in self._registrations:
            await registration.stop()
        await self._close_watches()
        liveness, self._liveness = self._liveness, None
        if liveness is not None:
            await liveness.aclose()
        if self._store is not None:
            await self._store.aclose()
        await self._session.aclose()

    def _new_catalog_watch(self) -> Watch[Catalog]:
        signal = self._session.signal()
        fired = self._session.watcher(lambda _: signal.set())
        return Watch(
            _poll(signal, lambda: self._read_catalog(fired)),
            name=f"the catalog at {self.url}",
            load=self._store.catalog if self._store is not None else None,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        signal = self._session.signal()
        known = KnownNodes(self._session, signal.set)

        async def read() -> tuple[Snapshot, int]:
            return await self._read_service(service, known)

        if self._liveness is None and self._probe_timeout_s is not None:
            # Imported here because it imports aiohttp, which registering does not need.
            from fingerpost.registry.watching.liveness import LivenessProbe

            self._liveness = LivenessProbe(timeout_s=self._probe_timeout_s, tls=self._tls)
        return ServiceWatch(
            _poll(signal, read),
            service=service,
            name=f"service {service} at {self.url}",
            probe=self._liveness.probe if self._liveness is not None else None,
            store=self._store,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    async def _read_service(self, service: str, known: KnownNodes | None) -> tuple[Snapshot, int]:
        async with deadline(self._call_timeout_s, f"reading {service} at {self.url}"):
            children, index, nodes = await self._entries.read(service, known)
        instances, problems = read_service(service, children, nodes)
        rejected = {
            each: Rejection(RejectionReason.MALFORMED, why) for each, why in problems.items()
        }
        healthy = []
        if self._signatures is not None:
            await self._signatures.verify(service, instances)
        for instance in instances:
            if why := entry_rejection(instance, self._address_policy, self._signatures):
                rejected[instance.id] = why
            elif instance.id not in children.hidden:
                healthy.append(instance)
        for entry_id, rejection in self.rejected_entries.note(service, rejected).items():
            logger.warning("%s: entry %r rejected: %s", service, entry_id, rejection.message)
        snapshot = Snapshot(
            service=service,
            instances=tuple(healthy),
            known=children.known,
            index=index,
            taken_at=self._clock(),
            withdrawn=tuple(sorted({*children.hidden, *rejected})),
            rejected=tuple((id_, each.message) for id_, each in rejected.items()),
        )
        return snapshot, index

    async def _read_catalog(self, fired: Callable[[Any], None] | None) -> tuple[Catalog, int]:
        root = self._address.root
        async with deadline(self._call_timeout_s, f"reading the catalog of {self.url}"):
            found = await self._entries.children(root, fired)
            names, index = found or ([], self._session.last_index)
            services = sorted(filter(is_service, names))
            lists = await self._session.gather(
                lambda path: self._entries.children(path, fired),
                [f"{root}/{each}" for each in services],
            )
        # A service whose last worker was killed leaves an empty node behind.
        known = [
            name
            for name, each in zip(services, lists, strict=True)
            if each is not None and sort_children(each[0]).known
        ]
        index = max([index, *(each[1] for each in lists if each is not None)])
        return Catalog(services=tuple(known), index=index, taken_at=self._clock()), index


def _poll(signal: asyncio.Event, read: Callable[[], Awaitable[tuple[V, int]]]) -> Poll[V]:
    """A poll that reads when `signal` is set, or after the time to wait."""

    async def poll(index: int, wait_s: float) -> tuple[V, int]:
        if index:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await signal.wait()
        signal.clear()
        return await read()

    return poll
