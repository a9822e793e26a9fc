"""Calls to one Consul agent about an instance: register, report, maintenance, deregister."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from fingerpost.basics.deadline import deadline
from fingerpost.errors import (
    InvalidInstance,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)
from fingerpost.registry.consul.acl import check_acl
from fingerpost.registry.consul.node_name import name_taken
from fingerpost.registry.consul.schema.checks import check_name, format_duration
from fingerpost.registry.consul.schema.codec import (
    TAG,
    decode_entries,
    decode_stale,
    encode_instance,
)
from fingerpost.registry.consul.schema.health import HealthCheck, decode_failing_check
from fingerpost.registry.consul.schema.models import LEFT_OUT
from fingerpost.registry.names import check_id

if TYPE_CHECKING:
    from fingerpost.registry.config import CheckConfig
    from fingerpost.registry.consul.client import ConsulClient
    from fingerpost.registry.consul.http import Answer, ConsulHttp
    from fingerpost.registry.consul.schema.codec import Entry
    from fingerpost.registry.instance import Instance

__all__ = ["ConsulAgent"]

logger = logging.getLogger(__name__)

# Servers showed a change within 125 ms at most; without a leader they do not.
_SETTLE_S: Final = 1.0


class ConsulAgent:
    """One agent's service calls. Each has the deadline `call_timeout_s`, and checks ids first.

    All raise `RegistryUnreachable`, `RegistryDenied` or `RegistryError`.

    Args:
        http: the connections to the agent.
        call_timeout_s: each call's deadline.
        check: how the agent checks what is registered.
        wan_address: the address for readers in other datacenters, where it is another one.
    """

    def __init__(
        self,
        http: ConsulHttp,
        *,
        call_timeout_s: float,
        check: CheckConfig,
        wan_address: str | None = None,
    ) -> None:
        self._http = http
        self._call_timeout_s = call_timeout_s
        self._check = check
        self._wan_address = wan_address
        self._client: ConsulClient | None = None

    @property
    def heartbeat_s(self) -> float | None:
        """Seconds between the reports for a TTL check; None for a check that needs none."""
        return self._check.heartbeat_s

    async def register(self, instance: Instance) -> None:
        """Record the instance; returns once the catalog shows it.

        Maintenance mode survives this, because existing checks are not replaced wholesale.

        Raises:
            InvalidInstance: it does not fit into Consul's metadata.
        """
        arguments = encode_instance(instance, self._check, wan_address=self._wan_address)
        if left_out := arguments["meta"].get(LEFT_OUT):
            logger.warning(
                "%s: %s of its %d models do not fit into the registry, and are not found by name",
                instance.id,
                left_out,
                len(instance.models),
            )
        what = f"registering {instance.id} at {self._http.base_url}"
        seen: list[Answer] = []
        try:
            async with deadline(self._call_timeout_s, what):
                with _naming_rule(instance):
                    await self._consul().agent.service.register(**arguments)
                    if self._check.mode == "ttl":
                        # Registering as passing does not revive a check that is critical already.
                        await self._report(instance.id, healthy=True)
                await self._until(instance, _is_listed, seen)
        except RegistryUnreachable:
            # Perhaps it is there, but the token may not read it.
            if seen and not decode_entries(seen[-1].body, instance.service):
                async with deadline(self._call_timeout_s, what):
                    await check_acl(self._http, seen[-1], instance.service, params={}, pool="calls")
                    if problem := await name_taken(self._http):
                        raise RegistryUnreachable(f"{what}: {problem}") from None
            raise

    async def _until(
        self, instance: Instance, settled: Callable[[Entry | None], bool], seen: list[Answer]
    ) -> None:
        """Wait until the servers show the instance's entry as wanted.

        The agent's 200 does not prove it: the agent updates the servers a moment later. The answers
        so far are added to `seen`.
        """
        path = f"/v1/health/service/{instance.service}"
        params = {"tag": TAG}
        while True:
            answer = await self._http.call("GET", path, params=params)
            seen.append(answer)
            entries = decode_entries(answer.body, instance.service)
            if settled(next((each for each in entries if each.id == instance.id), None)):
                return
            wait = format_duration(self._call_timeout_s)
            params = {"tag": TAG, "index": str(answer.index), "wait": wait}

    async def _settle(self, instance: Instance, settled: Callable[[Entry | None], bool]) -> None:
        """Wait for the servers, but not long: the agent has the change, and updates them later."""
        try:
            async with deadline(min(_SETTLE_S, self._call_timeout_s), "settling"):
                await self._until(instance, settled, [])
        except RegistryError as error:
            logger.debug("%s: the servers do not show the change yet: %s", instance.id, error)

    async def shown(self, instance: Instance) -> None:
        """Return once the servers show the entry as it is now, or after `_SETTLE_S`."""
        await self._settle(instance, lambda entry: entry is not None and entry.instance == instance)

    async def report(self, instance_id: str, *, healthy: bool) -> None:
        """Report the instance's health to the agent; for a TTL check."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"reporting on {instance_id}"):
            await self._report(instance_id, healthy=healthy)

    async def _report(self, instance_id: str, *, healthy: bool) -> None:
        check = self._consul().agent.check
        report = check.ttl_pass if healthy else check.ttl_fail
        await report(check_name(instance_id))

    async def knows(self, instance_id: str) -> bool:
        """Whether the agent has an entry of that id."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"looking up {instance_id}"):
            return await self._consul().agent.service_definition(instance_id) is not None

    async def failing_check(self, instance: Instance) -> HealthCheck | None:
        """A check of the instance's entry that fails at this agent, other than maintenance mode."""
        check_id(instance.id)
        async with deadline(self._call_timeout_s, f"reading the checks of {instance.id}"):
            only = {"filter": f'ServiceID == "{instance.id}"'}  # ignored by the embedded registry
            answer = await self._http.call("GET", "/v1/agent/checks", params=only)
        return decode_failing_check(answer.body, instance.id)

    async def maintenance(self, instance: Instance, *, enable: bool, reason: str = "") -> bool:
        """Switch an entry's maintenance mode; False where the agent has no such entry.

        Returns once the servers show it, or `_SETTLE_S` after the agent agreed.
        """
        check_id(instance.id)
        async with deadline(self._call_timeout_s, f"maintenance mode of {instance.id}"):
            service = self._consul().agent.service
            with _naming_rule(instance):
                found = bool(await service.maintenance(instance.id, enable, reason))
        if found:
            await self._settle(
                instance, lambda entry: entry is not None and entry.in_maintenance == enable
            )
        return found

    async def deregister(self, instance: Instance) -> None:
        """Remove an entry; one that is not there is not an error.

        Returns once the servers show it, or `_SETTLE_S` after the agent agreed.
        """
        check_id(instance.id)
        async with deadline(self._call_timeout_s, f"deregistering {instance.id}"):
            with _naming_rule(instance):
                await self._consul().agent.service.deregister(instance.id)
        await self._settle(instance, lambda entry: entry is None)

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove this agent's entries of other processes at the instance's address.

        Returns their ids, without those that the token may not remove.
        """
        async with deadline(self._call_timeout_s, f"looking for old entries of {instance.address}"):
            answer = await self._http.call("GET", "/v1/agent/services")
        removed = []
        for entry_id, service in decode_stale(answer.body, instance):
            try:
                async with deadline(self._call_timeout_s, f"deregistering {entry_id}"):
                    await self._consul().agent.service.deregister(entry_id)
            except RegistryDenied as error:
                logger.warning("the old entry %s of %s stays: %s", entry_id, service, error)
            else:
                removed.append(entry_id)
        return tuple(removed)

    def _consul(self) -> ConsulClient:
        if self._client is None:
            from fingerpost.registry.consul.client import ConsulClient

            self._client = ConsulClient(self._http)
        return self._client


@contextlib.contextmanager
def _naming_rule(instance: Instance) -> Iterator[None]:
    """Say more of an error: the rule that is missing, or what an old Consul cannot check."""
    try:
        yield
    except RegistryDenied as error:
        rule = f'service "{instance.service}" {{ policy = "write" }}'
        raise RegistryDenied(f"{error}; the token needs {rule}") from error
    except RegistryError as error:
        if "TLSServerName" not in error.message:
            raise
        raise InvalidInstance(
            f"instance {instance.id}: Consul before 1.10 cannot check a certificate that has not "
            f"the address {instance.host}: issue one that has it, or use --check ttl"
        ) from error


def _is_listed(entry: Entry | None) -> bool:
    if entry is not None and entry.rejection:
        raise RegistryError(f"{entry.id} cannot be read back from the registry: {entry.rejection}")
    return entry is not None
