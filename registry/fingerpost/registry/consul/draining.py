"""Draining an instance by its id, at whichever agent has it.

Only the agent that has an entry can switch its maintenance mode: no other agent and no server can.
So the own agent is asked first, and then the one of the machine that the catalog names in the
entry, at the scheme and port of the own one, with the same token and TLS settings. Where that one
listens on loopback only, as Consul does by default, the command must be run there.

The machine's address comes from the registry, and our token is sent to it: it is checked by the
same `AddressPolicy` as a worker's.

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
    from fingerpost.registry.consul.http import ConsulHttp
    from fingerpost.registry.consul.schema.codec import Entry
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
        entry: the entry in the catalog, with its machine.
        instance: the instance in it.
        reason: shown by Consul with the entry.
        http: the connections to the own agent.
        address_policy: which machines' addresses are allowed.
        call_timeout_s: the deadline of each of the two calls to each of the two agents.

    Raises:
        InvalidRequest: the other machine's address is not allowed, or its agent cannot be reached
            or does not have the entry; the message names the machine, its URL and what to run
            there.
        RegistryDenied: an agent denies it to the token.
        RegistryError: the call to the own agent failed.
    """
    if await _switch(http, instance, reason, call_timeout_s):
        return
    command = f"fingerpost {'undrain' if reason is None else 'drain'} {instance.id}"
    parts = urlsplit(http.base_url)
    scheme = "consul+https" if parts.scheme == "https" else "consul"
    there = f"run there: {command} --registry {scheme}://127.0.0.1:{parts.port}"
    who = f"{instance.id} is registered at the agent of machine {entry.node}"
    machine = f"{who} at {entry.node_address}"
    try:
        # An address policy checks instances: one with this machine's address.
        moved = msgspec.structs.replace(instance, host=entry.node_address)
    except InvalidInstance as error:
        raise InvalidRequest(
            f"{who}, whose address {entry.node_address!r} is not valid; {there}"
        ) from error
    if (rejection := address_policy.rejection(moved)) is not None:
        raise InvalidRequest(f"{machine}, which is not contacted: {rejection.message}; {there}")
    far = http.at(entry.node_address)
    try:
        found = await _switch(far, instance, reason, call_timeout_s)
    except RegistryDenied:
        raise
    except RegistryError as error:
        raise InvalidRequest(
            f"{machine}, and the call to that agent at {far.base_url} failed: {error}; {there}"
        ) from error
    finally:
        await far.aclose()
    if not found:
        raise InvalidRequest(
            f"{machine}, but the agent at {far.base_url} does not have it: it is leaving, or "
            f"another agent than this machine's answers there; look at `fingerpost status`, or "
            f"{there}"
        )


async def _switch(
    http: ConsulHttp, instance: Instance, reason: str | None, call_timeout_s: float
) -> bool:
    """Switch maintenance mode at this agent; False where the agent has no such entry."""
    agent = ConsulAgent(http, call_timeout_s=call_timeout_s, check=CheckConfig())
    # Checked first because, with ACLs, switching an unknown entry fails with status 500.
    return await agent.knows(instance.id) and await agent.maintenance(
        instance, enable=reason is not None, reason=reason or ""
    )
