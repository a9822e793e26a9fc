"""Whether another machine has the name of ours in Consul, which takes a name only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.basics.printable import one_line

if TYPE_CHECKING:
    from fingerpost.registry.consul.http import ConsulHttp

__all__ = ["name_taken"]


class _Config(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="NodeName")
    id: str = msgspec.field(name="NodeID")


class _Self(msgspec.Struct, frozen=True):
    config: _Config = msgspec.field(name="Config")


class _Node(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID")
    address: str = msgspec.field(name="Address")


class _Found(msgspec.Struct, frozen=True):
    node: _Node = msgspec.field(name="Node")


async def name_taken(http: ConsulHttp) -> str:
    """What is wrong, and what to do; empty where the name is this machine's alone.

    The agent of a second machine of one name answers, and takes registrations; the servers refuse
    to pass them on. It is empty, too, where the token may not read that, and at the embedded
    registry, which has no nodes.

    Raises:
        RegistryError: the agent cannot be asked.
    """
    answer = await http.call("GET", "/v1/agent/self", any_status=True)
    if answer.status != 200:
        return ""
    try:
        own = msgspec.json.decode(answer.body, type=_Self).config
        if not own.name.isascii() or "/" in own.name or not own.name.isprintable():
            return ""
        answer = await http.call("GET", f"/v1/catalog/node/{own.name}", any_status=True)
        if answer.status != 200:
            return ""
        other = msgspec.json.decode(answer.body, type=_Found).node
    except msgspec.DecodeError:  # also null, for a name that no node has
        return ""
    if not other.id or other.id == own.id:
        return ""
    name, address = one_line(own.name, 100), one_line(other.address, 100)
    return (
        f"another machine, {address}, has the name {name} in Consul: give this one a name of its "
        "own (hostnamectl set-hostname, or node_name of its Consul agent); if that machine is "
        f"gone: consul force-leave {name}"
    )
