"""Kubernetes as the registry: EndpointSlices, and a Lease for each instance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from fingerpost.basics.deadline import deadline
from fingerpost.errors import ConfigurationError, InvalidRequest, RegistryError
from fingerpost.registry.address_policy import AddressPolicy, RejectedEntries
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.engine_check import HttpCheckConfig
from fingerpost.registry.kubernetes.access import Access, open_access
from fingerpost.registry.kubernetes.codec import SERVICE, decode_lease, decode_slice
from fingerpost.registry.kubernetes.documents import read_document, write_document
from fingerpost.registry.kubernetes.http import KubernetesHttp
from fingerpost.registry.kubernetes.informer import Informer
from fingerpost.registry.kubernetes.leases import InstanceLeases
from fingerpost.registry.kubernetes.lists import Collection
from fingerpost.registry.kubernetes.registration import KubernetesRegistration
from fingerpost.registry.kubernetes.resource import SLICES
from fingerpost.registry.kubernetes.state import entries_of
from fingerpost.registry.kubernetes.url import KubernetesUrl
from fingerpost.registry.names import check_id_or_address, check_service, is_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.liveness import LivenessProbe
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.selection import EntrySelection
from fingerpost.registry.watching.service_watch import ServiceWatch, Store
from fingerpost.registry.watching.shared import WatchingRegistry
from fingerpost.registry.watching.watch import Poll, V, Watch

if TYPE_CHECKING:
    import builtins

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.kubernetes.rules import Entry
    from fingerpost.registry.watching.signatures import EntrySignatures

__all__ = ["CHECK", "KubernetesRegistry"]

# The kubelet's own timeout. A pod that is throttled for half a second should stay on the list.
CHECK: Final = HttpCheckConfig(timeout_s=1.0)
# All watches share two connections; this only bounds the cost of a caller that asks for any name.
MAX_WATCHES: Final = 1000
# The longest removal of an entry whose registration was cancelled.
_REMOVAL_S: Final = 1.0


class KubernetesRegistry(WatchingRegistry):
    """`Registry` on Kubernetes: workers are pods, seen through the EndpointSlices of a Service.

    What a worker serves stands in a Lease that its pod owns (see `codec`); whether it may get
    requests is what Kubernetes says of the pod (see `rules`). Nothing is written but changes.

    Registering needs to know the pod: `POD_NAME` and `POD_UID` in the environment. It returns once
    the Lease is stored; the instance is on the healthy list as soon as the pod is ready, which is
    for the kubelet and the pod's readinessProbe to say.

    A resolve lists anew. All watches together hold two connections (see `Informer`); while one of
    them fails, every view stays as it was, and its age grows.

    Args:
        url: `kubernetes://[NAMESPACE[/SERVICE]]`; see `KubernetesUrl`.
        registry_config: token, certificates and the like, instead of the service account's or the
            kubeconfig's; see `RegistryConfig`.
        access: how the API server is reached; by default what `open_access` finds.
        call_timeout_s: each call's deadline. More tolerates a slower API server; less fails sooner.
        keep_alive_s: how often a registration checks that its Lease is there. More costs fewer
            calls, of which a thousand workers make a hundred a second with the default; less
            restores it sooner after somebody removed it.
        watch_config: see `WatchConfig`; a poll is answered from memory.
        check_config: how a worker checks itself, besides its pod's probes, which know neither the
            boot id nor a stall of a second; see `HttpCheckConfig`. None does not.
        address_policy: which addresses are allowed; see `AddressPolicy`.
        signatures: which signatures are believed; None asks for none.
        store: where snapshots are kept across restarts; None keeps none. `aclose` closes it.

    Raises:
        ConfigurationError: the URL is not valid, a duration is not positive, or there is neither a
            service account nor a kubeconfig.
    """

    def __init__(
        self,
        url: str = "kubernetes://",
        *,
        registry_config: RegistryConfig | None = None,
        access: Access | None = None,
        call_timeout_s: float = 3.0,
        keep_alive_s: float = 10.0,
        watch_config: WatchConfig | None = None,
        check_config: HttpCheckConfig | None = CHECK,
        address_policy: AddressPolicy | None = None,
        signatures: EntrySignatures | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        if min(call_timeout_s, keep_alive_s) <= 0:
            raise ConfigurationError(
                f"call_timeout_s={call_timeout_s} and keep_alive_s={keep_alive_s} must be above 0"
            )
        registry_config = registry_config or RegistryConfig()
        parsed = KubernetesUrl.parse(url)
        access = access or open_access(parsed, registry_config)
        self._namespace = parsed.namespace or access.namespace
        self._pod_namespace = access.pod_namespace
        self._http = KubernetesHttp(access)
        self._leases = InstanceLeases(
            self._http, self._namespace, access.pod, call_timeout_s=call_timeout_s
        )
        self._slices = Collection(
            self._http,
            SLICES,
            self._namespace,
            f"kubernetes.io/service-name={parsed.service}" if parsed.service else "",
            call_timeout_s=call_timeout_s,
        )
        self._service = parsed.service
        self._call_timeout_s = call_timeout_s
        self._keep_alive_s = keep_alive_s
        self._watch_config = watch_config or WatchConfig()
        self._check_config = check_config
        self._tls = registry_config.workers_tls
        self._clock = clock
        self._rng = rng or random.Random()
        self._registrations: list[KubernetesRegistration] = []
        self._store = store
        self._liveness = LivenessProbe.of(self._watch_config.self_preservation, self._tls)
        self._informer: Informer | None = None
        super().__init__(max_watches=MAX_WATCHES)
        self.rejected_entries = RejectedEntries()
        self._selection = EntrySelection(
            address_policy or AddressPolicy(), signatures, self.rejected_entries
        )

    @property
    def url(self) -> str:
        """The registry's URL, with its namespace, and the API server."""
        service = f"/{self._service}" if self._service else ""
        return f"kubernetes://{self._namespace}{service} at {self._http.server}"

    @property
    def rejected(self) -> int:
        """The number of rejected entries so far; `rejected_entries` has it by reason."""
        return self.rejected_entries.total

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> KubernetesRegistration:
        """Record the instance; returns once its Lease is stored. See `Registry.register`.

        `healthy` is not used: the pod's probes and the worker's own check have the same result.

        Raises:
            InvalidInstance: it does not fit into a Lease.
            ConfigurationError: this process does not know its pod, or that is in another namespace.
            RegistryError: not confirmed. It may have been recorded all the same: call again.
        """
        self._check_namespace(instance)
        try:
            await self._leases.put(instance)
        except asyncio.CancelledError:  # it may have been recorded, and nobody would remove it
            with contextlib.suppress(RegistryError, TimeoutError):
                async with asyncio.timeout(_REMOVAL_S):
                    await self._leases.remove(instance.id)
            raise
        registration = KubernetesRegistration(
            self._leases,
            instance,
            check=self._check_config,
            tls=self._tls,
            interval_s=self._keep_alive_s,
            call_timeout_s=self._call_timeout_s,
            rng=self._rng,
        ).start()
        self._registrations.append(registration)
        return registration

    def _check_namespace(self, instance: Instance) -> None:
        self._leases.owner(instance)
        if self._pod_namespace not in ("", self._namespace):
            raise ConfigurationError(
                f"cannot register {instance.id} in the namespace {self._namespace!r}: its pod is "
                f"in {self._pod_namespace!r}, and Kubernetes removes an entry with its pod in the "
                f"same namespace only; use kubernetes://{self._pod_namespace}"
            )

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain any instances, or put them back; it holds until changed.

        See `Registry.set_draining`.

        Raises:
            InvalidRequest: there is no such instance.
            RegistryError: the call to the registry failed.
        """
        check_id_or_address(instance_id)
        host, colon, port = instance_id.rpartition(":")
        if colon:
            found = [each.id for each in await self._leases.at(host.strip("[]"), int(port))]
        else:
            found = [instance_id]
        drained = [await self._leases.drain(each, reason) for each in found]
        if not any(drained):
            raise InvalidRequest(
                f"no instance {instance_id!r} at {self.url}; `fingerpost status` lists them"
            )

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove the Leases of containers that ran before. See `Registry.remove_stale`."""
        return await self._leases.remove_stale(instance)

    async def list(self, service: str) -> Snapshot:
        """Resolve once. See `Registry.list`."""
        check_service(service)
        (leases, version), (slices, _) = await asyncio.gather(
            self._leases.collection.read(decode_lease, f"{SERVICE}={service}"),
            self._slices.read(decode_slice),
        )
        index = int(version) if version.isdigit() else 1
        return await self._snapshot(service, entries_of(leases, slices), index, self._clock())

    async def catalog(self) -> Catalog:
        """The names of all services with a Lease. See `Registry.catalog`."""
        leases, version = await self._leases.collection.read(decode_lease)
        services = {each.service for each in leases if is_service(each.service)}
        return Catalog(
            services=tuple(sorted(services)),
            index=int(version) if version.isdigit() else 1,
            taken_at=self._clock(),
        )

    async def document(self, name: str) -> bytes | None:
        """See `Registry.document`; a ConfigMap."""
        return await read_document(
            self._http, self._namespace, name, call_timeout_s=self._call_timeout_s
        )

    async def publish(self, name: str, content: bytes) -> None:
        """See `Registry.publish`."""
        await write_document(
            self._http, self._namespace, name, content, call_timeout_s=self._call_timeout_s
        )

    async def aclose(self) -> None:
        """End all background work and close all connections; Leases stay as long as the pod."""
        for registration in self._registrations:
            await registration.stop()
        await self._close_watches()
        informer, self._informer = self._informer, None
        if informer is not None:
            await informer.aclose()
        if self._liveness is not None:
            await self._liveness.aclose()
        if self._store is not None:
            await self._store.aclose()
        await self._http.aclose()

    def _new_catalog_watch(self) -> Watch[Catalog]:
        informer = self._informed()

        async def read() -> tuple[Catalog, int]:
            index = informer.index
            services = informer.state.services
            return Catalog(services=services, index=index, taken_at=informer.confirmed_at), index

        return Watch(
            self._poll(informer, informer.state.signal(), read),
            name=f"the catalog at {self.url}",
            load=self._store.catalog if self._store is not None else None,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        informer = self._informed()

        async def read() -> tuple[Snapshot, int]:
            index = informer.index
            entries = informer.state.entries(service)
            snapshot = await self._snapshot(service, entries, index, informer.confirmed_at)
            return snapshot, index

        return ServiceWatch(
            self._poll(informer, informer.state.signal(service), read),
            service=service,
            name=f"service {service} at {self.url}",
            probe=self._liveness.probe if self._liveness is not None else None,
            store=self._store,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    def _informed(self) -> Informer:
        if self._informer is None:
            self._informer = Informer(
                self._http,
                self._leases.collection,
                self._slices,
                config=self._watch_config,
                clock=self._clock,
                rng=self._rng,
            )
        return self._informer

    def _poll(
        self,
        informer: Informer,
        signal: asyncio.Event,
        read: Callable[[], Awaitable[tuple[V, int]]],
    ) -> Poll[V]:
        """A poll that reads the state when `signal` is set, or after the time to wait."""

        async def poll(index: int, wait_s: float) -> tuple[V, int]:
            async with deadline(2 * self._call_timeout_s, f"reading {self.url}"):
                await informer.ready()
            if index or informer.error is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await signal.wait()
            signal.clear()
            if informer.error is not None:
                raise informer.error
            return await read()

        return poll

    async def _snapshot(
        self, service: str, entries: Iterable[Entry], index: int, taken_at: float
    ) -> Snapshot:
        read: builtins.list[Entry] = [*entries]
        instances, rejected = await self._selection.select(service, read)
        withdrawn = {each.id for each in read if each.withdrawn}
        return Snapshot(
            service=service,
            instances=instances,
            known=bool(read),
            index=max(1, index),
            taken_at=taken_at,
            withdrawn=tuple(sorted(withdrawn | set(rejected))),
            rejected=tuple(rejected.items()),
            failing=tuple(
                (entry.id, f"{entry.instance.address}: {entry.problem}")
                for entry in read
                if entry.problem and entry.instance is not None and not entry.drained
            ),
        )
