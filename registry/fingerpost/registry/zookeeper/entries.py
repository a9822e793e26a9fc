"""Reads and writes the nodes of instances in ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.deadline import deadline
from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.registry.instance import Instance, address_in_id
from fingerpost.registry.names import check_id, check_service, is_service
from fingerpost.registry.zookeeper.codec import (
    DRAIN,
    SICK,
    Children,
    Node,
    decode_instance,
    encode_instance,
    sort_children,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fingerpost.registry.zookeeper.session import ZooKeeperSession

__all__ = ["KnownNodes", "ZooKeeperEntries"]

# How often a write is tried that another client's write interrupts.
_ATTEMPTS: Final = 8
# A drain marker without an instance is removed after this time: its worker is dead. A worker that
# only lost its session is back long before.
_ORPHAN_MS: Final = 3600 * 1000


class ZooKeeperEntries:
    """The nodes below one root node. Calls have the deadline `call_timeout_s`, and check names.

    All raise `RegistryUnreachable`, `RegistryDenied` or `RegistryError`.
    """

    def __init__(self, session: ZooKeeperSession, root: str, *, call_timeout_s: float) -> None:
        self._session = session
        self._root = root
        self._call_timeout_s = call_timeout_s

    def path(self, service: str, entry: str = "") -> str:
        """The path of a service's node, or of an entry's or marker's below it."""
        check_service(service)
        if not entry:
            return f"{self._root}/{service}"
        check_id(entry.removesuffix(DRAIN).removesuffix(SICK))
        return f"{self._root}/{service}/{entry}"

    # Reading

    async def children(
        self, path: str, watch: Callable[[Any], None] | None = None
    ) -> tuple[list[str], int] | None:
        """The names below a node and their `pzxid`, or None where there is no such node.

        `watch` is called, in a thread, when either changes. No deadline of its own.
        """
        while True:
            try:
                names, stat = await self._session.call(
                    "get_children", path, watch=watch, include_data=True
                )
            except Exception as error:
                if not self._session.no_node(error):
                    raise
                # A watch on children needs the node; this one fires when the node is created.
                if watch is None or await self._session.call("exists", path, watch=watch) is None:
                    return None
            else:
                return list(names), int(stat.pzxid)

    async def node(self, path: str, watch: Callable[[Any], None] | None = None) -> Node | None:
        """A node's content and owner, or None where there is none. No deadline of its own."""
        try:
            data, stat = await self._session.call("get", path, watch=watch)
        except Exception as error:
            if not self._session.no_node(error):
                raise
            return None
        return Node(bytes(data), int(stat.ephemeralOwner))

    async def is_registered(self, instance: Instance) -> bool | None:
        """Whether this session owns the instance's node; None where another process does."""
        path = self.path(instance.service, instance.id)
        async with deadline(self._call_timeout_s, f"looking up {instance.id}"):
            node = await self.node(path)
            if node is None:
                return False
            if node.owner == self._session.id:
                return True
            # Our own node of an earlier session, or that of another process?
            return False if node.data == encode_instance(instance) else None

    # Writing

    async def put(self, instance: Instance, *, sick: bool = False) -> None:
        """Create the instance's node in this session; returns once it was read back.

        A node of that id that belongs to another session is replaced, in one transaction, so that
        no reader misses it. A drain marker stays.

        Raises:
            InvalidInstance: it does not fit into a node.
        """
        data = encode_instance(instance)
        path = self.path(instance.service, instance.id)
        try:
            async with deadline(self._call_timeout_s, f"registering {instance.id}"):
                if sick:
                    await self.mark(instance.service, instance.id + SICK, ephemeral=True)
                await self._put(path, data)
        except (asyncio.CancelledError, RegistryUnreachable):
            # Cancelled, but a request under way may still create it.
            self._session.delete_later(path)
            raise
        with contextlib.suppress(RegistryError):
            async with deadline(self._call_timeout_s, "removing old drain markers"):
                await self._remove_orphans(instance.service, path)

    async def replace(self, instance: Instance) -> None:
        """Write other content into the instance's node, or create it; its markers stay.

        In one transaction, so that no reader misses the instance.

        Raises:
            InvalidInstance: it does not fit into a node.
        """
        data = encode_instance(instance)
        async with deadline(self._call_timeout_s, f"updating {instance.id}"):
            await self._put(self.path(instance.service, instance.id), data)

    async def _put(self, path: str, data: bytes) -> None:
        for _ in range(_ATTEMPTS):
            node = await self.node(path)
            if node is not None and node == (data, self._session.id):
                return
            old = [("delete", (path,))] if node is not None else []
            results = await self._session.transact(*old, ("create", (path, data, None, True)))
            if not old and any(map(self._session.no_node, results)):
                await self._make_parents(path)
            # Otherwise it is read back, or another client wrote in between.
        raise RegistryError(f"{path} is being rewritten by others; is its id in use twice?")

    async def _make_parents(self, path: str) -> None:
        position = path.find("/", 1)
        while position != -1:
            with self._session.expected("NodeExistsError"):
                await self._session.call("create", path[:position])
            position = path.find("/", position + 1)

    async def _remove_orphans(self, service: str, own_path: str) -> None:
        found = await self.children(self.path(service))
        orphans = sort_children(found[0]).orphans if found else ()
        if not orphans:
            return
        own = await self._session.call("exists", own_path)
        for orphan in orphans[:16]:
            path = self.path(service, orphan + DRAIN)
            stat = await self._session.call("exists", path)
            # Both times are from the ensemble's clock.
            if own is not None and stat is not None and own.ctime - stat.ctime > _ORPHAN_MS:
                with self._session.expected("NoNodeError"):
                    await self._session.call("delete", path)

    async def mark(
        self, service: str, name: str, *, content: str = "", ephemeral: bool = False
    ) -> bool:
        """Create a marker, and read it back; False where the service has no node at all.

        No deadline of its own.
        """
        path = self.path(service, name)
        data = content.encode("utf-8", "replace")[:1024]
        try:
            with self._session.expected("NodeExistsError"):
                await self._session.call("create", path, data, ephemeral=ephemeral)
            return await self._session.call("exists", path) is not None
        except Exception as error:
            if not self._session.no_node(error):
                raise
            return False

    async def drain(self, service: str, instance_id: str, reason: str) -> None:
        """Hide an instance; its node stays. Nothing happens where there is no such service."""
        async with deadline(self._call_timeout_s, f"draining {instance_id}"):
            await self.mark(service, check_id(instance_id) + DRAIN, content=reason)

    async def undrain(self, service: str, instance_id: str) -> None:
        """Show an instance again; one that is not hidden is not an error."""
        path = self.path(service, check_id(instance_id) + DRAIN)
        async with deadline(self._call_timeout_s, f"undraining {instance_id}"):
            with self._session.expected("NoNodeError"):
                await self._session.call("delete", path)
            if await self._session.call("exists", path) is not None:
                raise RegistryError(f"{instance_id} was drained again by another process meanwhile")

    async def remove(self, instance: Instance) -> None:
        """Remove the instance and its markers, and the service's node with its last entry.

        A node of that id that another process owns now is not changed.
        """
        service = instance.service
        async with deadline(self._call_timeout_s, f"deregistering {instance.id}"):
            path = self.path(service, instance.id)
            node = await self.node(path)
            ours = (self._session.id, encode_instance(instance))
            if node is not None and node.owner != ours[0] and node.data != ours[1]:
                return
            for name in (instance.id, instance.id + SICK, instance.id + DRAIN):
                with self._session.expected("NoNodeError"):
                    await self._session.call("delete", self.path(service, name))
            with (
                contextlib.suppress(RegistryError),  # it is not necessary
                self._session.expected("NoNodeError", "NotEmptyError"),
            ):
                await self._session.call("delete", self.path(service))

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove the nodes of other processes at the instance's address; return their ids.

        Only nodes are read whose ids have that address, which is one in many.
        """
        address = f"-{address_in_id(instance.host, instance.ports['http'])}-"
        wanted = (instance.host, instance.ports["http"])
        removed = []
        async with deadline(self._call_timeout_s, f"looking for old entries of {address[1:-1]}"):
            found = await self.children(self._root)
            for service in sorted(filter(is_service, found[0] if found else ())):
                names = await self.children(self.path(service))
                for entry_id in sort_children(names[0] if names else ()).ids:
                    if address not in entry_id:
                        continue
                    path = self.path(service, entry_id)
                    node = await self.node(path)
                    entry = None if node is None else decode_instance(entry_id, service, node)
                    if (
                        isinstance(entry, Instance)
                        and (entry.host, entry.ports["http"]) == wanted
                        and entry.boot_id not in (0, instance.boot_id)
                    ):
                        with self._session.expected("NoNodeError"):
                            await self._session.call("delete", path)
                        removed.append(entry_id)
        return tuple(removed)

    async def find(self, instance_id: str) -> str | None:
        """The service with an instance or a drain marker of that id, or None."""
        check_id(instance_id)
        async with deadline(self._call_timeout_s, f"looking for {instance_id}"):
            found = await self.children(self._root)
            for service in sorted(filter(is_service, found[0] if found else ())):
                names = await self.children(self.path(service))
                if names and {instance_id, instance_id + DRAIN} & set(names[0]):
                    return service
        return None

    async def read(
        self, service: str, known: KnownNodes | None = None
    ) -> tuple[Children, int, dict[str, Node]]:
        """The names below a service's node, its index, and each instance's node.

        With `known`, the nodes are watched, and only nodes that it does not have are read. No
        deadline of its own.
        """
        known = known or KnownNodes(self._session, None)
        known.begin()
        found = await self.children(self.path(service), known.watcher)
        if found is None:
            return sort_children(()), self._session.last_index, {}
        children = sort_children(found[0])
        paths = {self.path(service, each): each for each in children.ids}
        missing = [path for path in paths if path not in known.nodes]

        async def read(path: str) -> Node | None:
            return await self.node(path, known.watcher)

        for path, node in zip(missing, await self._session.gather(read, missing), strict=True):
            known.note(path, node)
        known.end(paths)
        return children, found[1], {paths[path]: node for path, node in known.read.items()}


class KnownNodes:
    """The instances' nodes that a watch of a service has read, so that a change reads one node.

    A node is read with a watch on it, and read again after the watch has fired. Watches and answers
    come through different threads of kazoo, so a watch may fire before the answer that it makes
    obsolete arrives: such an answer is used once, and not kept.

    Args:
        session: the session whose connection the watches need.
        changed: called in the loop after each change; None reads without watches.

    Attributes:
        nodes: the nodes that are known and have not changed, by path.
        read: the nodes of the read in progress, or of the last one, by path.
    """

    def __init__(self, session: ZooKeeperSession, changed: Callable[[], None] | None) -> None:
        self._session = session
        self._changed = changed
        # The same object each time, because kazoo keeps a set of them for each node.
        self.watcher = session.watcher(self._fired) if changed is not None else None
        self._epoch = session.epoch
        self._obsolete: set[str] = set()
        self.nodes: dict[str, Node] = {}
        self.read: dict[str, Node] = {}

    def begin(self) -> None:
        """Begin a read; after a new connection, the old watches are gone."""
        if self._epoch != self._session.epoch:
            self._epoch = self._session.epoch
            self.nodes.clear()
        self._obsolete.clear()
        self.read = dict(self.nodes)

    def note(self, path: str, node: Node | None) -> None:
        """Record a node that was read, or None where it is gone."""
        if node is not None:
            self.read[path] = node
            if path not in self._obsolete:
                self.nodes[path] = node

    def end(self, paths: Iterable[str]) -> None:
        """End a read; nodes other than `paths` are dropped."""
        wanted = set(paths)
        self.nodes = {path: node for path, node in self.nodes.items() if path in wanted}
        self.read = {path: node for path, node in self.read.items() if path in wanted}

    def _fired(self, path: str) -> None:
        self._obsolete.add(path)
        self.nodes.pop(path, None)
        if self._changed is not None:
            self._changed()
