"""The registry for every cluster of more than one machine: Consul, through its local agent."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fingerpost.registry.consul_agent import ConsulAgent
from fingerpost.registry.consul_codec import (
    TAG,
    CheckConfig,
    Entry,
    decode_catalog,
    decode_entries,
    format_duration,
)
from fingerpost.registry.consul_http import Answer, ConsulHttp, Pool, deadline
from fingerpost.registry.consul_registration import ConsulRegistration
from fingerpost.registry.errors import ConfigurationError, RegistryError
from fingerpost.registry.names import check_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watch import Poll, V, Watch
from fingerpost.registry.watch_rules import WatchConfig

if TYPE_CHECKING:
    import builtins
    import ssl

    from fingerpost.registry.instance import Instance

__all__ = ["ConsulRegistry"]

logger = logging.getLogger(__name__)

# An agent takes 200 connections from one address (limits.http_max_conns_per_client), and other
# processes on this machine want some of them.
MAX_WATCHES: Final = 100


class ConsulRegistry:
    """`Registry` over the HTTP API of one Consul agent, or of Fingerpost's embedded registry.

    Reads are stale ones: any server answers them, with or without a leader, at the price of an
    answer some milliseconds old. They ask for all of a service's entries and judge their checks
    here, because Consul's own `?passing` cannot tell an unknown service from one with nobody
    healthy. A service is Fingerpost's if it has the tag `fingerpost`.

    An entry that makes no sense (a bad address, hostile metadata) is left out, logged once, and
    counted in `refused`; the others are not disturbed.

    Args:
        url: `http(s)://HOST:PORT` of the agent, best the one on this machine.
        token: ACL token. A worker needs `service "X" { policy = "write" }`; a reader
            `service_prefix` and `node_prefix` read: without node read, lists are silently empty.
        datacenter: where to read from; the agent's own, if None. Registering is always local.
        call_timeout_s: each call's deadline. More endures a slower agent; less fails sooner.
        keep_alive_s: how often a registration looks whether it is still there. More costs fewer
            calls; less is back sooner after an agent that lost its memory.
        watch: see `WatchConfig`.
        check: see `CheckConfig`.
        tls: for `https`: a context with your CA and client certificate; the system's CAs, if None.

    Raises:
        ConfigurationError: the URL is none, or a duration is not positive.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8500",
        *,
        token: str | None = None,
        datacenter: str | None = None,
        call_timeout_s: float = 3.0,
        keep_alive_s: float = 2.0,
        watch: WatchConfig | None = None,
        check: CheckConfig | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        if call_timeout_s <= 0 or keep_alive_s <= 0:
            raise ConfigurationError(
                f"call_timeout_s={call_timeout_s} and keep_alive_s={keep_alive_s} must be above 0"
            )
        self._http = ConsulHttp(url, token=token, tls=tls)
        self._call_timeout_s = call_timeout_s
        self._keep_alive_s = keep_alive_s
        self._datacenter = datacenter
        self._watch_config = watch or WatchConfig()
        self._clock = clock
        self._rng = rng or random.Random()
        self._agent = ConsulAgent(
            self._http, call_timeout_s=call_timeout_s, check=check or CheckConfig()
        )
        self._registrations: list[ConsulRegistration] = []
        self._watches: dict[str, Watch[Snapshot]] = {}
        self._catalog_watch: Watch[Catalog] | None = None
        self._refused_ids: dict[str, set[str]] = {}
        self.refused = 0

    @property
    def url(self) -> str:
        """The agent's base URL."""
        return self._http.base_url

    async def register(self, instance: Instance) -> ConsulRegistration:
        """Record the instance; returns once the catalog shows it. See `Registry.register`.

        Raises:
            InvalidInstance: it does not fit into Consul's metadata.
            RegistryError: not confirmed. It may have been recorded all the same: call again.
        """
        await self._agent.register(instance)
        registration = ConsulRegistration(
            self._agent, instance, interval_s=self._keep_alive_s, rng=self._rng
        ).start()
        self._registrations.append(registration)
        return registration

    async def list(self, service: str) -> Snapshot:
        """Resolve once. See `Registry.list`."""
        check_service(service)
        snapshot, _ = await self._read_service(service, 0, 0.0, pool="calls")
        return snapshot

    async def catalog(self) -> Catalog:
        """The names of all Fingerpost services. See `Registry.catalog`."""
        catalog, _ = await self._read_catalog(0, 0.0, pool="calls")
        return catalog

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch, shared by all callers. See `Registry.watch`.

        Raises:
            RegistryError: there are `MAX_WATCHES` of them already.
        """
        check_service(service)
        watch = self._watches.get(service)
        if watch is None:
            if len(self._watches) >= MAX_WATCHES:
                raise RegistryError(
                    f"cannot watch {service!r}: {MAX_WATCHES} services are being watched already"
                )

            async def poll(index: int, wait_s: float) -> tuple[Snapshot, int]:
                return await self._read_service(service, index, wait_s, pool="watches")

            watch = self._watches[service] = self._new_watch(poll, f"service {service}")
        return watch.start()

    def watch_catalog(self) -> Watch[Catalog]:
        """A started watch of the service names, shared. See `Registry.watch_catalog`."""
        if self._catalog_watch is None:

            async def poll(index: int, wait_s: float) -> tuple[Catalog, int]:
                return await self._read_catalog(index, wait_s, pool="watches")

            self._catalog_watch = self._new_watch(poll, "the catalog")
        return self._catalog_watch.start()

    async def aclose(self) -> None:
        """End all background work and close all connections; entries stay in the registry."""
        for registration in self._registrations:
            await registration.stop()
        for watch in self._watches.values():
            await watch.aclose()
        if self._catalog_watch is not None:
            await self._catalog_watch.aclose()
        await self._http.aclose()

    def _new_watch(self, poll: Poll[V], name: str) -> Watch[V]:
        return Watch(
            poll,
            name=f"{name} at {self.url}",
            config=self._watch_config,
            clock=self._clock,
            rng=self._rng,
        )

    async def _read_service(
        self, service: str, index: int, wait_s: float, *, pool: Pool
    ) -> tuple[Snapshot, int]:
        path = f"/v1/health/service/{service}"
        answer = await self._read(path, {"tag": TAG}, index, wait_s, pool=pool)
        entries = decode_entries(answer.body, service)
        if not entries and not answer.knows_leader:
            # A server that has just started and found no leader yet has an empty catalog. That is
            # no statement about the service.
            raise RegistryError(f"{self.url} has no leader, so its empty list is not believed")
        snapshot = Snapshot(
            service=service,
            instances=self._accept(service, entries),
            known=bool(entries),
            index=answer.index,
            taken_at=self._clock(),
        )
        return snapshot, answer.index

    async def _read_catalog(self, index: int, wait_s: float, *, pool: Pool) -> tuple[Catalog, int]:
        answer = await self._read("/v1/catalog/services", {}, index, wait_s, pool=pool)
        services = decode_catalog(answer.body)
        if not services and not answer.knows_leader:
            raise RegistryError(f"{self.url} has no leader, so its empty catalog is not believed")
        return Catalog(services=services, index=answer.index, taken_at=self._clock()), answer.index

    async def _read(
        self, path: str, params: dict[str, str], index: int, wait_s: float, *, pool: Pool
    ) -> Answer:
        params["stale"] = ""
        if self._datacenter is not None:
            params["dc"] = self._datacenter
        held_s = 0.0
        if index:
            params |= {"index": str(index), "wait": format_duration(wait_s)}
            held_s = wait_s * 17 / 16  # Consul adds up to a sixteenth, so that watchers spread out
        async with deadline(held_s + self._call_timeout_s, f"GET {self.url}{path}"):
            return await self._http.call("GET", path, params=params, pool=pool)

    def _accept(self, service: str, entries: builtins.list[Entry]) -> tuple[Instance, ...]:
        """The healthy instances, sorted by id; refusals logged and counted when first seen."""
        healthy: dict[str, Instance] = {}
        refusals: dict[str, str] = {}
        for entry in entries:
            if entry.instance is None:
                refusals[entry.id] = entry.refusal
            elif entry.healthy and healthy.setdefault(entry.id, entry.instance) != entry.instance:
                refusals[entry.id] = "another node has an entry of the same id"
        seen = self._refused_ids.get(service, set())
        for entry_id in refusals.keys() - seen:
            self.refused += 1
            logger.warning("%s: entry %r refused: %s", service, entry_id, refusals[entry_id])
        if refusals:
            self._refused_ids[service] = set(refusals)
        else:
            self._refused_ids.pop(service, None)
        return tuple(healthy[entry_id] for entry_id in sorted(healthy))
