"""The registry for every cluster of more than one machine: Consul, through its local agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.basics.deadline import deadline
from fingerpost.basics.renames import renamed_arguments
from fingerpost.errors import (
    ConfigurationError,
    InvalidRequest,
    NotARegistry,
    RegistryDenied,
    RegistryError,
)
from fingerpost.registry.address_policy import AddressPolicy, RejectedEntries
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.consul.acl import check_acl
from fingerpost.registry.consul.agent import ConsulAgent
from fingerpost.registry.consul.datacenters import DatacenterOrder
from fingerpost.registry.consul.documents import read_document, write_document
from fingerpost.registry.consul.draining import set_draining
from fingerpost.registry.consul.http import Answer, ConsulHttp, Pool
from fingerpost.registry.consul.registration import ConsulRegistration
from fingerpost.registry.consul.schema.checks import format_duration
from fingerpost.registry.consul.schema.codec import decode_catalog, decode_entries
from fingerpost.registry.consul.schema.url import parse_base_url
from fingerpost.registry.consul.tls import Tls
from fingerpost.registry.credentials import Token
from fingerpost.registry.names import check_id_or_address, check_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.liveness import LivenessProbe
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.selection import EntrySelection
from fingerpost.registry.watching.service_watch import ServiceWatch, Store
from fingerpost.registry.watching.shared import WatchingRegistry
from fingerpost.registry.watching.watch import Watch

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.watching.signatures import EntrySignatures

__all__ = ["ConsulRegistry"]

logger = logging.getLogger(__name__)

# An agent takes 200 connections from one address (limits.http_max_conns_per_client), and other
# processes on this machine want some of them.
MAX_WATCHES: Final = 100

# The longest removal of an entry whose registration was cancelled.
_REMOVAL_S: Final = 1.0


class ConsulRegistry(WatchingRegistry):
    """`Registry` over the HTTP API of one Consul agent, or of Fingerpost's embedded registry.

    A resolve, and the first poll of a watch, ask the leader, so that they show what this process
    has just registered or drained. Where the leader does not answer within a third of the deadline,
    and in every later poll, any server may answer (`?stale`), with or without a leader; the answer
    may be some milliseconds old. Reads ask for all entries of a service and evaluate their checks
    here, because Consul's own `?passing` does not distinguish an unknown service from one without
    healthy instances. A service is Fingerpost's if it has the tag `fingerpost`; of the others,
    those with foreign workers are found by their name (`Catalog.unlisted`). With several
    datacenters, a service is read from the first that has a healthy instance (see `datacenters`);
    the list of services is that of the first that answers.

    An empty answer is believed only if the token may read the entries. Consul answers with an empty
    list where it may not; here that is `RegistryDenied`.

    An entry that is malformed or not allowed by the address policy is left out, logged once, and
    counted in `rejected`; the others are not affected. A watched list that shrinks suspiciously is
    not believed before its workers were probed: see `watching.self_preservation`.

    Args:
        url: `http(s)://HOST:PORT` of the agent, preferably the one on this machine.
        registry_config: token, TLS, datacenters and the like; see `RegistryConfig`. The rights
            that a token needs are in `deploy/consul/policies`. Registering is always local.
        call_timeout_s: each call's deadline. More tolerates a slower agent; less fails sooner.
        keep_alive_s: how often a registration checks that its entry is there. More costs fewer
            calls; less restores it sooner after an agent lost its memory.
        watch_config: see `WatchConfig`.
        address_policy: which addresses are allowed; see `AddressPolicy` for the default.
        signatures: which signatures are believed; None asks for none.
        store: where snapshots are kept across restarts, such as a `SnapshotStore`; None keeps
            none. `aclose` closes it.

    Raises:
        ConfigurationError: the URL is not valid, a duration is not positive, or a file in
            `registry_config` is missing or not valid.
    """

    @renamed_arguments(
        "ConsulRegistry",
        options="registry_config",
        watch="watch_config",
        admission="address_policy",
    )
    def __init__(
        self,
        url: str = "http://127.0.0.1:8500",
        *,
        registry_config: RegistryConfig | None = None,
        call_timeout_s: float = 3.0,
        keep_alive_s: float = 2.0,
        watch_config: WatchConfig | None = None,
        address_policy: AddressPolicy | None = None,
        signatures: EntrySignatures | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        if call_timeout_s <= 0 or keep_alive_s <= 0:
            raise ConfigurationError(
                f"call_timeout_s={call_timeout_s} and keep_alive_s={keep_alive_s} must be above 0"
            )
        registry_config = registry_config or RegistryConfig()
        secure = url.startswith("https:")
        if registry_config.uses_tls and not secure:
            raise ConfigurationError(
                "ca_file, cert_file, key_file and verify=False need TLS, which "
                f"{parse_base_url(url)} does not have; use consul+https://"
            )
        self._http = ConsulHttp(
            url,
            token=Token(registry_config.token, registry_config.token_file),
            namespace=registry_config.namespace,
            tls=Tls(registry_config) if secure else None,
        )
        self._call_timeout_s = call_timeout_s
        self._keep_alive_s = keep_alive_s
        self._datacenters = registry_config.datacenters
        self._watch_config = watch_config or WatchConfig()
        self._clock = clock
        self._rng = rng or random.Random()
        self._agent = ConsulAgent(
            self._http,
            call_timeout_s=call_timeout_s,
            check=registry_config.check,
            wan_address=registry_config.wan_address,
        )
        self._registrations: list[ConsulRegistration] = []
        self._address_policy = address_policy or AddressPolicy()
        self._store = store
        self._liveness = LivenessProbe.of(
            self._watch_config.self_preservation, registry_config.workers_tls
        )
        super().__init__(max_watches=MAX_WATCHES)
        self.rejected_entries = RejectedEntries()
        self._selection = EntrySelection(self._address_policy, signatures, self.rejected_entries)

    @property
    def url(self) -> str:
        """The agent's base URL."""
        return self._http.base_url

    @property
    def rejected(self) -> int:
        """The number of rejected entries so far; `rejected_entries` has it by reason."""
        return self.rejected_entries.total

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> ConsulRegistration:
        """Record the instance; returns once the catalog shows it. See `Registry.register`.

        With a TTL check, the registration reports the result of `healthy`; without it, an instance
        is healthy for as long as its process runs. It is called often, and must not block.

        Raises:
            InvalidInstance: it does not fit into Consul's metadata.
            RegistryError: not confirmed. It may have been recorded all the same: call again.
        """
        try:
            await self._agent.register(instance)
        except asyncio.CancelledError:  # it may have been recorded, and nobody would remove it
            with contextlib.suppress(RegistryError, TimeoutError):
                async with asyncio.timeout(_REMOVAL_S):
                    await self._agent.deregister(instance)
            raise
        registration = ConsulRegistration(
            self._agent, instance, interval_s=self._keep_alive_s, rng=self._rng, healthy=healthy
        ).start()
        self._registrations.append(registration)
        return registration

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain instances of the own datacenter, or put them back. See `Registry.set_draining`.

        It holds until changed, or until the instance's agent loses its memory. Where that is not
        this agent, it is called directly: see `draining`.

        Raises:
            InvalidRequest: there is no such instance, or it is another agent's, and the call to
                that agent failed: the message names machine and address, and what to run there.
            RegistryError: the call to the registry failed.
        """
        check_id_or_address(instance_id)
        found = False
        catalog = await self.catalog()
        for service in (*catalog.services, *catalog.unlisted):
            if found and service in catalog.unlisted:
                break
            path = f"/v1/health/service/{service}"
            answer = await self._read(path, self._where(0), 0, 0.0, pool="calls")
            for entry in decode_entries(answer.body, service):
                instance = entry.instance
                if instance is not None and instance_id in (entry.id, instance.address):
                    found = True
                    await set_draining(
                        entry,
                        msgspec.structs.replace(instance, id=entry.own_id),
                        reason,
                        http=self._http,
                        address_policy=self._address_policy,
                        call_timeout_s=self._call_timeout_s,
                    )
        if not found:
            raise InvalidRequest(
                f"no instance {instance_id!r} at {self.url}; `fingerpost status` lists them"
            )

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove entries at this agent. See `Registry.remove_stale`."""
        return await self._agent.remove_stale(instance)

    async def list(self, service: str) -> Snapshot:
        """Resolve once. See `Registry.list`."""
        check_service(service)
        snapshot, _ = await self._order(service, pool="calls").poll(0, 0.0)
        return snapshot

    async def catalog(self) -> Catalog:
        """The names of all Fingerpost services. See `Registry.catalog`."""
        catalog, _ = await self._read_catalog(0, 0.0, pool="calls")
        return catalog

    async def document(self, name: str) -> bytes | None:
        """See `Registry.document`; in the key-value store of the own datacenter."""
        return await read_document(self._http, name, call_timeout_s=self._call_timeout_s)

    async def publish(self, name: str, content: bytes) -> None:
        """See `Registry.publish`."""
        await write_document(self._http, name, content, call_timeout_s=self._call_timeout_s)

    async def aclose(self) -> None:
        """End all background work and close all connections; entries stay in the registry."""
        for registration in self._registrations:
            await registration.stop()
        await self._close_watches()
        if self._liveness is not None:
            await self._liveness.aclose()
        if self._store is not None:
            await self._store.aclose()
        await self._http.aclose()

    def _new_catalog_watch(self) -> Watch[Catalog]:
        async def poll(index: int, wait_s: float) -> tuple[Catalog, int]:
            return await self._read_catalog(index, wait_s, pool="watches")

        return Watch(
            poll,
            name=f"the catalog at {self.url}",
            load=self._store.catalog if self._store is not None else None,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        return ServiceWatch(
            self._order(service, pool="watches").poll,
            service=service,
            name=f"service {service} at {self.url}",
            probe=self._liveness.probe if self._liveness is not None else None,
            store=self._store,
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    def _order(self, service: str, *, pool: Pool) -> DatacenterOrder:
        listed: dict[int, set[str]] = {}

        async def read(position: int, index: int, wait_s: float) -> tuple[Snapshot, int]:
            snapshot, index = await self._read_service(service, position, index, wait_s, pool=pool)
            if len(self._datacenters) > 1 and snapshot.instances:
                # A change of the datacenter withdraws the instances of the one before: otherwise
                # they would be probed, found ready, and retained beside the others.
                listed[position] = {each.id for each in snapshot.instances}
                others = (ids for at, ids in listed.items() if at != position)
                withdrawn = set(snapshot.withdrawn).union(*others)
                snapshot = msgspec.structs.replace(snapshot, withdrawn=tuple(sorted(withdrawn)))
            return snapshot, index

        return DatacenterOrder(service, self._datacenters, read)

    async def _read_service(
        self, service: str, position: int, index: int, wait_s: float, *, pool: Pool
    ) -> tuple[Snapshot, int]:
        path = f"/v1/health/service/{service}"
        where = self._where(position)
        answer = await self._read(path, where, index, wait_s, pool=pool)
        entries = decode_entries(answer.body, service, remote=position > 0)
        if not entries:
            await self._verify_empty(answer, service, where, pool=pool)
        instances, rejected = await self._selection.select(service, entries)
        snapshot = Snapshot(
            service=service,
            instances=instances,
            known=bool(entries),
            index=answer.index,
            taken_at=self._clock(),
            withdrawn=tuple(
                sorted({each.id for each in entries if each.withdrawn} | set(rejected))
            ),
            rejected=tuple(rejected.items()),
            failing=tuple(
                (entry.id, f"{entry.instance.address}: {entry.problem}")
                for entry in entries
                if entry.problem and entry.instance is not None and not entry.in_maintenance
            ),
        )
        return snapshot, answer.index

    async def _read_catalog(self, index: int, wait_s: float, *, pool: Pool) -> tuple[Catalog, int]:
        failure: RegistryError | None = None
        for position in range(max(1, len(self._datacenters))):
            where = self._where(position)
            try:
                answer = await self._read("/v1/catalog/services", where, index, wait_s, pool=pool)
                answer.index  # noqa: B018  # another server's answer has none: say that first
                services, others = decode_catalog(answer.body)
                if not services:
                    await self._verify_empty(answer, None, where, pool=pool)
            except RegistryDenied:
                raise
            except RegistryError as error:
                failure = failure or error
                index = 0  # the next datacenter counts otherwise
                continue
            services, others = self._found(services, others)
            now = self._clock()
            catalog = Catalog(services=services, index=answer.index, taken_at=now, unlisted=others)
            return catalog, answer.index
        raise failure or RegistryError(f"{self.url} did not answer")

    def _found(
        self, services: tuple[str, ...], others: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The services that are listed, as named ones are, and those found by their name only."""
        named = self._address_policy.foreign_services
        if named is None:
            return services, others if self._selection.signatures is None else ()
        return tuple(sorted({*services, *named.intersection(others)})), ()

    def _where(self, position: int) -> dict[str, str]:
        return {"dc": self._datacenters[position]} if self._datacenters else {}

    async def _verify_empty(
        self, answer: Answer, service: str | None, where: dict[str, str], *, pool: Pool
    ) -> None:
        if not answer.knows_leader:
            # A server that has just started and found no leader yet has an empty catalog, whatever
            # the service has.
            raise RegistryError(f"{self.url} has no leader, so its empty list is not believed")
        async with deadline(self._call_timeout_s, f"asking {self.url} what the token may read"):
            await check_acl(self._http, answer, service, params=where, pool=pool)

    async def _read(
        self, path: str, params: dict[str, str], index: int, wait_s: float, *, pool: Pool
    ) -> Answer:
        what = f"GET {self.url}{path}"
        stale = {"stale": ""} | params
        if index:
            stale |= {"index": str(index), "wait": format_duration(wait_s)}
            held_s = wait_s * 17 / 16  # Consul adds up to a sixteenth, so that watchers spread out
            async with deadline(held_s + self._call_timeout_s, what):
                return await self._http.call("GET", path, params=stale, pool=pool)
        async with deadline(self._call_timeout_s, what):
            try:
                async with deadline(self._call_timeout_s / 3, what):
                    return await self._http.call("GET", path, params=params, pool=pool)
            except (RegistryDenied, NotARegistry):
                raise
            except RegistryError:
                return await self._http.call("GET", path, params=stale, pool=pool)
