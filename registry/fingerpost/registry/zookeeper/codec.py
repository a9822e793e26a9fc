"""The nodes of a service in ZooKeeper, and how they are read. Pure: no I/O, no clock.

Below the root node, `/fingerpost` by default:

====================  ==============================================================================
``SERVICE``           persistent, empty; removed with its last entry by the worker that leaves
``SERVICE/ID``        ephemeral: the instance as JSON; gone with the worker's session
``SERVICE/ID:drain``  persistent: this instance is drained, its content the reason. It outlives the
                      session, so that an instance that comes back is still drained
``SERVICE/ID:sick``   ephemeral: the instance's own check found that its engine does not answer
====================  ==============================================================================

Ids contain no colon, so a marker is never mistaken for an instance. All nodes of a service are in
one list of names, so one read shows an instance and its markers at one moment, one watch reports
every change, and the list's `pzxid` (the transaction that last changed it) is the snapshot's index.
Rejected: the state inside the instance's node, which its worker and a remote operator would both
have to rewrite; and a list of its own for each state, because two lists are not of one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from fingerpost.errors import InvalidInstance, InvalidName
from fingerpost.registry.foreign import decode_plain
from fingerpost.registry.instance import Instance
from fingerpost.registry.names import check_id
from fingerpost.registry.peers.answer import DECODE_ERRORS

__all__ = [
    "DRAIN",
    "SICK",
    "Children",
    "Node",
    "decode_instance",
    "encode_instance",
    "read_service",
    "sort_children",
]

DRAIN: Final = ":drain"
SICK: Final = ":sick"

# A node may hold 1 MB (jute.maxbuffer); 25 models of 40 versions each take 15 KB.
MAX_BYTES: Final = 256 * 1024
_MAX_BOOT_ID: Final = 2**53


class Node(NamedTuple):
    """A node as read: its content, and the id of the session that owns it (0: none)."""

    data: bytes
    owner: int


class Children(msgspec.Struct, frozen=True, kw_only=True):
    """The names below a service's node, sorted by kind.

    Attributes:
        ids: the instances, healthy or not, sorted.
        hidden: those of them that are drained or sick.
        foreign: names that are neither instances nor markers.
        orphans: instances that have a drain marker and no entry, sorted.
    """

    ids: tuple[str, ...]
    hidden: frozenset[str]
    foreign: tuple[str, ...]
    orphans: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether anything is registered there at all."""
        return bool(self.ids or self.foreign)


def sort_children(names: Iterable[str]) -> Children:
    """Sort the names into instances, markers and all else."""
    ids: set[str] = set()
    drained: set[str] = set()
    sick: set[str] = set()
    foreign: list[str] = []
    for name in names:
        base = name.removesuffix(DRAIN).removesuffix(SICK)
        group = drained if name == base + DRAIN else sick if name == base + SICK else ids
        if _is_id(base):
            group.add(base)
        else:
            foreign.append(name)
    return Children(
        ids=tuple(sorted(ids)),
        hidden=frozenset((drained | sick) & ids),
        foreign=tuple(sorted(foreign)),
        orphans=tuple(sorted(drained - ids)),
    )


def encode_instance(instance: Instance) -> bytes:
    """The content of an instance's node: JSON, keys in a fixed order.

    Raises:
        InvalidInstance: over 256 KiB.
    """
    data = msgspec.json.encode(instance, order="sorted")
    if len(data) > MAX_BYTES:
        raise InvalidInstance(
            f"instance {instance.id}: {len(data)} bytes exceed {MAX_BYTES}; use fewer models, "
            "versions or metadata"
        )
    return data


def decode_instance(entry_id: str, service: str, node: Node) -> Instance | str:
    """The instance in one entry's content, or the reason why it is malformed."""
    try:
        if (plain := decode_plain(node.data[:MAX_BYTES], entry_id, service)) is not None:
            return plain
        if not node.owner:
            raise InvalidInstance("its node is not ephemeral, so it would outlive its worker")
        if len(node.data) > MAX_BYTES:
            raise InvalidInstance(f"{len(node.data)} bytes exceed {MAX_BYTES}")
        instance = msgspec.json.decode(node.data, type=Instance)
        if (instance.id, instance.service) != (entry_id, service):
            raise InvalidInstance(
                f"its content is instance {instance.id!r} of service {instance.service!r}"
            )
        if not 0 <= instance.boot_id < _MAX_BOOT_ID:
            raise InvalidInstance(f"boot id {instance.boot_id} is not in 0..2**53-1")
    except DECODE_ERRORS as bad:
        return str(bad)[:500]
    return instance


def read_service(
    service: str, children: Children, nodes: Mapping[str, Node]
) -> tuple[list[Instance], dict[str, str]]:
    """The instances, healthy or not, sorted by id; and why each malformed entry is rejected.

    `nodes` does not have those that were removed since the list was read.
    """
    instances: list[Instance] = []
    problems = {
        name[:128]: "its name is not a valid id of an instance" for name in children.foreign
    }
    for entry_id in children.ids:
        node = nodes.get(entry_id)
        if node is None:
            continue
        read = decode_instance(entry_id, service, node)
        if isinstance(read, str):
            problems[entry_id] = read
        else:
            instances.append(read)
    return instances, problems


def _is_id(name: str) -> bool:
    try:
        check_id(name)
    except InvalidName:
        return False
    return True
