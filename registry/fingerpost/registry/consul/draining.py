"""Draining an instance by its id, at whichever agent has it.

Maintenance mode is a matter of the agent that has the entry: no other agent and no server can
switch it. So the own agent is asked first, and else the one of the machine that the catalog names
beside the entry, at the scheme and port of the own one, with the same token and TLS settings.
Where that one listens on loopback only, as Consul does by default, the order has to be given there.

The machine's address is the registry's word, and our token goes to it: it is judged by the same
`AddressPolicy` as a worker's.

Rejected: `/v1/catalog/register` with a critical check, which any server takes. The agent knows no
such check, and removes it at its next comparison with the catalog, a minute later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from fingerpost.errors import (
    InvalidInstance,
    InvalidRequest,
    RegistryDenied,
    RegistryError,
)
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.agent import ConsulAgent

if TYPE_CHECKING:
    from fingerpost.registry.address_policy import AddressPolicy
    from fingerpost.registry.consul.codec import Entry
    from fingerpost.registry.consul.http import ConsulHttp
    from fingerpost.registry.instance import Instance

__all__ = ["set_draining"]


async def set_draining(
    entry: Entry,
    instance: Instance,
    reason: str | None,
    *,
    http: ConsulHttp,
    address_policy: AddressPolicy,
    call_timeout_s: float,
) -> None:
    """Switch the maintenance mode of `entry`, which is `instance`; off where `reason` is None.

    Args:
        entry: what the catalog says, the machine included.
        instance: the entry as read.
        reason: shown by Consul beside the entry.
        http: the connections to the own agent.
        address_policy: which machines may be spoken to.
        call_timeout_s: the deadline of each of the two calls to each of the two agents.

    Raises:
        InvalidRequest: the other machine's agent may not be or cannot be reached, or does not know
            the entry; the message names the machine, its URL and what to run there.
        RegistryDenied: an agent does not let the token do it.
        RegistryError: the own agent could not be told.
    """
    if await _order(http, instance, reason, call_timeout_s):
        return
    order = f"fingerpost {'undrain' if reason is None else 'drain'} {instance.id}"
    parts = urlsplit(http.base_url)
    scheme = "consul+https" if parts.scheme == "https" else "consul"
    there = f"run there: {order} --registry {scheme}://127.0.0.1:{parts.port}"
    who = f"{instance.id} is registered at the agent of machine {entry.node}"
    machine = f"{who} at {entry.node_address}"
    try:
        # The instance of this machine's address is what an address policy checks.
        moved = msgspec.structs.replace(instance, host=entry.node_address)
    except InvalidInstance as error:
        raise InvalidRequest(
            f"{who}, whose address {entry.node_address!r} is none; {there}"
        ) from error
    if (rejection := address_policy.rejection(moved)) is not None:
        raise InvalidRequest(f"{machine}, which is not spoken to: {rejection.message}; {there}")
    far = http.at(entry.node_address)
    try:
        found = await _order(far, instance, reason, call_timeout_s)
    except RegistryDenied:
        raise
    except RegistryError as error:
        raise InvalidRequest(
            f"{machine}, and that agent could not be told at {far.base_url}: {error}; {there}"
        ) from error
    finally:
        await far.aclose()
    if not found:
        raise InvalidRequest(
            f"{machine}, but the agent at {far.base_url} does not know it: it is leaving, or "
            f"another agent than this machine's answers there; look at `fingerpost status`, or "
            f"{there}"
        )


async def _order(
    http: ConsulHttp, instance: Instance, reason: str | None, call_timeout_s: float
) -> bool:
    """Switch it at this agent; False where the agent has no such entry."""
    agent = ConsulAgent(http, call_timeout_s=call_timeout_s, check=CheckConfig())
    # Asked first because, with ACLs, the order itself fails with status 500 where it is unknown.
    return await agent.knows(instance.id) and await agent.maintenance(
        instance, enable=reason is not None, reason=reason or ""
    )
