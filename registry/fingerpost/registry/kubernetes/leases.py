"""Writes the Leases of instances."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fingerpost.basics.deadline import deadline
from fingerpost.errors import ConfigurationError, RegistryError
from fingerpost.registry.kubernetes.codec import (
    ADDRESS,
    LABEL,
    LeaseEntry,
    PodReference,
    address_label,
    decode_lease,
    drain_patch,
    encode_lease,
    encode_update,
    lease_name,
    sick_patch,
)
from fingerpost.registry.kubernetes.http import AlreadyExists, NotFound
from fingerpost.registry.kubernetes.lists import Collection
from fingerpost.registry.kubernetes.resource import LEASES
from fingerpost.registry.names import check_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.kubernetes.http import KubernetesHttp

__all__ = ["InstanceLeases"]

# How often a Lease is written that others remove and create meanwhile.
_ATTEMPTS = 3


class InstanceLeases:
    """The Leases of instances in one namespace. Calls have the deadline `call_timeout_s`.

    Args:
        http: the API server.
        namespace: the namespace.
        pod: the pod that owns what is registered here; None where nothing can be.
        call_timeout_s: each call's deadline.
    """

    def __init__(
        self,
        http: KubernetesHttp,
        namespace: str,
        pod: PodReference | None,
        *,
        call_timeout_s: float,
    ) -> None:
        self._http = http
        self._pod = pod
        self._resource = LEASES.at(namespace)
        self._call_timeout_s = call_timeout_s
        self.collection = Collection(
            http, LEASES, namespace, "=".join(LABEL), call_timeout_s=call_timeout_s
        )

    def owner(self, instance: Instance) -> PodReference:
        """The pod that owns what is registered here.

        Raises:
            ConfigurationError: it is not known.
        """
        if self._pod is None:
            raise ConfigurationError(
                f"cannot register {instance.id} in Kubernetes: this process does not know its pod. "
                "In a pod, set POD_NAME and POD_UID from fieldRef metadata.name and metadata.uid "
                "(docs/kubernetes.md); on a bare machine, use another registry"
            )
        return self._pod

    async def put(self, instance: Instance, *, sick: bool = False) -> None:
        """Create the Lease, or replace the instance in it; a drain mark stays.

        The server answers once the Lease is stored, so that every later list has it.

        Raises:
            InvalidInstance: it does not fit into a Lease.
            ConfigurationError: see `owner`.
            RegistryError: the call failed.
        """
        pod = self.owner(instance)
        created = encode_lease(instance, pod, sick=sick)
        patch = encode_update(instance, pod)
        patch["metadata"]["annotations"] |= sick_patch(sick=sick)["metadata"]["annotations"]
        async with deadline(self._call_timeout_s, f"registering {instance.id}"):
            for _ in range(_ATTEMPTS):
                try:
                    await self._http.call("create", self._resource, body=created)
                except AlreadyExists:
                    if await self._patch(instance.id, patch):
                        return
                else:
                    return
        raise RegistryError(f"the Lease of {instance.id} is removed again and again by others")

    async def update(self, instance: Instance) -> bool:
        """Replace the instance in its Lease; False where there is none. Its marks stay."""
        patch = encode_update(instance, self.owner(instance))
        async with deadline(self._call_timeout_s, f"updating {instance.id}"):
            return await self._patch(instance.id, patch)

    async def drain(self, instance_id: str, reason: str | None) -> bool:
        """Drain an instance, or put it back (None); False where there is none."""
        async with deadline(self._call_timeout_s, f"draining {instance_id}"):
            return await self._patch(instance_id, drain_patch(reason))

    async def mark_sick(self, instance_id: str, *, sick: bool) -> bool:
        """Write or remove the mark of an instance's own check; False where there is none."""
        async with deadline(self._call_timeout_s, f"marking {instance_id}"):
            return await self._patch(instance_id, sick_patch(sick=sick))

    async def remove(self, instance_id: str) -> None:
        """Remove an instance; one that is gone is not an error."""
        async with deadline(self._call_timeout_s, f"deregistering {instance_id}"):
            await self._remove(lease_name(check_id(instance_id)))

    async def get(self, instance_id: str, *, cached: bool = False) -> LeaseEntry | None:
        """The Lease of an instance, or None. A cached answer may be some milliseconds old."""
        params = {"resourceVersion": "0"} if cached else {}
        async with deadline(self._call_timeout_s, f"looking up {instance_id}"):
            try:
                name = lease_name(check_id(instance_id))
                body = await self._http.call("get", self._resource, name, params=params)
            except NotFound:
                return None
        return decode_lease(body)

    async def at(self, host: str, port: int) -> list[LeaseEntry]:
        """The instances at an address, healthy or not."""
        wanted = f"{ADDRESS}={address_label(host, port)}"
        found, _ = await self.collection.read(decode_lease, wanted)
        return [
            each
            for each in found
            if each.instance is not None
            and (each.instance.host, each.instance.ports["http"]) == (host, port)
        ]

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove what other processes registered at the instance's address; return their ids."""
        found = await self.at(instance.host, instance.ports["http"])
        stale = [
            each
            for each in found
            if each.instance is not None and each.instance.boot_id not in (0, instance.boot_id)
        ]
        await self._remove_all(stale)
        return tuple(each.id for each in stale)

    async def _remove_all(self, leases: Iterable[LeaseEntry]) -> None:
        async with deadline(self._call_timeout_s, "removing old entries"):
            await asyncio.gather(*(self._remove(each.name) for each in leases))

    async def _remove(self, name: str) -> None:
        try:
            await self._http.call("delete", self._resource, name)
        except NotFound:
            return

    async def _patch(self, instance_id: str, patch: dict[str, Any]) -> bool:
        try:
            await self._http.call(
                "patch", self._resource, lease_name(check_id(instance_id)), body=patch
            )
        except NotFound:
            return False
        return True
