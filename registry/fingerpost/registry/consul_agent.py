"""What a worker tells its Consul agent: here I am, leave me out for now, I am gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fingerpost.registry.consul_codec import (
    TAG,
    CheckConfig,
    decode_entries,
    encode_instance,
    format_duration,
)
from fingerpost.registry.consul_http import ConsulHttp, deadline
from fingerpost.registry.errors import RegistryError
from fingerpost.registry.names import check_id

if TYPE_CHECKING:
    from fingerpost.registry.consul_client import ConsulClient
    from fingerpost.registry.instance import Instance

__all__ = ["ConsulAgent"]

logger = logging.getLogger(__name__)


class ConsulAgent:
    """One agent's service calls. Each has the deadline `call_timeout_s`, and checks ids first.

    All raise `RegistryUnreachable`, `RegistryDenied` or `RegistryError`.
    """

    def __init__(self, http: ConsulHttp, *, call_timeout_s: float, check: CheckConfig) -> None:
        self._http = http
        self._call_timeout_s = call_timeout_s
        self._check = check
        self._client: ConsulClient | None = None

    async def register(self, instance: Instance) -> None:
        """Record the instance; returns once the catalog shows it.

        Maintenance mode survives this, because existing checks are not replaced wholesale.

        Raises:
            InvalidInstance: it does not fit into Consul's metadata.
        """
        arguments = encode_instance(instance, self._check)
        what = f"registering {instance.id} at {self._http.base_url}"
        async with deadline(self._call_timeout_s, what):
            await self._consul().agent.service.register(**arguments)
            await self._confirm(instance)

    async def _confirm(self, instance: Instance) -> None:
        """Read one's own id back: the agent's 200 is no proof that the servers have the entry."""
        path = f"/v1/health/service/{instance.service}"
        params = {"tag": TAG}
        while True:
            answer = await self._http.call("GET", path, params=params)
            for entry in decode_entries(answer.body, instance.service):
                if entry.id == instance.id:
                    if entry.refusal:
                        raise RegistryError(
                            f"{instance.id} cannot be read back from the registry: {entry.refusal}"
                        )
                    return
            wait = format_duration(self._call_timeout_s)
            params = {"tag": TAG, "index": str(answer.index), "wait": wait}

    async def knows(self, instance_id: str) -> bool:
        """Whether the agent has an entry of that id."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"looking up {instance_id}"):
            return await self._consul().agent.service_definition(instance_id) is not None

    async def maintenance(self, instance_id: str, *, enable: bool, reason: str = "") -> bool:
        """Switch an entry's maintenance mode; False where the agent has no such entry."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"maintenance mode of {instance_id}"):
            return bool(await self._consul().agent.service.maintenance(instance_id, enable, reason))

    async def deregister(self, instance_id: str) -> None:
        """Remove an entry; one that is not there is no error."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"deregistering {instance_id}"):
            await self._consul().agent.service.deregister(instance_id)

    def _consul(self) -> ConsulClient:
        if self._client is None:
            from fingerpost.registry.consul_client import ConsulClient

            self._client = ConsulClient(self._http)
        return self._client
