"""Workers that registered with a seaport hub (https://github.com/substack/node-seaport): read only.

seaport's protocol is JSON lines over TCP, both ways: a hub sends `["register", ID, META]` for each
service it knows, then `["synced"]`, then what changes, `["free", ID]` among it, and every 15 s
`["heartbeat"]`. It ends a connection on which it got no heartbeat for 45 s. A registration lasts as
long as the connection of the process that made it. (seaport 2.0.9, lib/protocol.js.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.basics.backoff import Backoff
from fingerpost.basics.supervision import supervise
from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    RegistryError,
    RegistryUnreachable,
)
from fingerpost.registry.address_policy import AddressPolicy, RejectedEntries
from fingerpost.registry.documents import check_document
from fingerpost.registry.foreign import FOREIGN_KEYS, foreign_instance
from fingerpost.registry.instance import SCHEME_KEY, Instance
from fingerpost.registry.names import check_id, check_service, is_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.selection import EntrySelection
from fingerpost.registry.watching.shared import WatchingRegistry
from fingerpost.registry.watching.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry.base import Registration
    from fingerpost.registry.watching.signatures import EntrySignatures

__all__ = ["SeaportRegistry"]

logger = logging.getLogger(__name__)

_URL: Final = re.compile(r"seaport://(\[[0-9A-Fa-f:.]+\]|[^\[\]:/]+):([0-9]{1,5})/?", re.I | re.A)
_HEARTBEAT_S: Final = 15.0
_SILENT_S: Final = 45.0
_CONNECT_S: Final = 3.0
_BACKOFF: Final = Backoff(base_s=0.2, cap_s=5.0)
_LINE_BYTES: Final = 1 << 16
_MAX_ENTRIES: Final = 10_000
_MAX_WATCHES: Final = 1000
_MAJOR: Final = re.compile(r"v?([0-9]{1,18})(?:\.|\Z)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Entry:
    """See `watching.selection.ReadEntry`."""

    id: str
    instance: Instance | None
    healthy: bool = True
    rejection: str = ""


class SeaportRegistry(WatchingRegistry):
    """`Registry` over one seaport hub: its roles are services of foreign workers.

    Nothing can be registered, drained or published. While the hub cannot be reached, its last list
    stays, as with every registry. The first number of an entry's version is the model's version;
    its own fields of `foreign.FOREIGN_KEYS` are the worker's metadata.

    Args:
        url: `seaport://HOST:PORT`.
        watch_config: see `WatchConfig`.
        address_policy: which addresses are used, and which services.
        signatures: seaport has none: with these, a service has to be named.

    Raises:
        ConfigurationError: not of that form.
    """

    def __init__(
        self,
        url: str,
        *,
        watch_config: WatchConfig | None = None,
        address_policy: AddressPolicy | None = None,
        signatures: EntrySignatures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        match = _URL.fullmatch(url)
        if match is None or not 0 < int(match[2]) < 65536:
            raise ConfigurationError(f"registry URL {url!r}: expected seaport://HOST:PORT")
        self._host, self._port = match[1].strip("[]"), int(match[2])
        self._url = url
        self._watch_config = watch_config or WatchConfig()
        self._clock = clock
        self._metas: dict[str, Any] = {}
        self._index = 0  # 0: no list came yet
        self._error = ""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        super().__init__(max_watches=_MAX_WATCHES)
        self.rejected_entries = RejectedEntries()
        self._selection = EntrySelection(
            address_policy or AddressPolicy(), signatures, self.rejected_entries
        )

    @property
    def url(self) -> str:
        """The hub's URL."""
        return self._url

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> Registration:
        """Not possible. Raises `ConfigurationError`."""
        raise self._read_only(f"register {instance.id}")

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Not possible. Raises `ConfigurationError`."""
        raise self._read_only(f"drain {instance_id}")

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Nothing is registered, so nothing is removed."""
        return ()

    async def document(self, name: str) -> bytes | None:
        """A hub has no documents."""
        check_document(name)
        return None

    async def publish(self, name: str, content: bytes) -> None:
        """Not possible. Raises `ConfigurationError`."""
        raise self._read_only(f"publish {name!r}")

    def _read_only(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"cannot {what}: {self._url} is only read; use a registry such as "
            "consul://127.0.0.1:8500, beside it if need be (--registry may be repeated)"
        )

    async def list(self, service: str) -> Snapshot:
        """The workers that have the role `service` now. See `Registry.list`."""
        check_service(service)
        await self._listed(0, 0.0)
        return await self._snapshot(service)

    async def catalog(self) -> Catalog:
        """The roles that are valid names of services. See `Registry.catalog`."""
        await self._listed(0, 0.0)
        return self._catalog()

    async def aclose(self) -> None:
        """End all watches, and the connection."""
        await self._close_watches()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _new_catalog_watch(self) -> Watch[Catalog]:
        async def poll(index: int, wait_s: float) -> tuple[Catalog, int]:
            await self._listed(index, wait_s)
            return self._catalog(), self._index

        return Watch(poll, name=f"the roles at {self._url}", config=self._watch_config)

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        async def poll(index: int, wait_s: float) -> tuple[Snapshot, int]:
            await self._listed(index, wait_s)
            return await self._snapshot(service), self._index

        return Watch(poll, name=f"role {service} at {self._url}", config=self._watch_config)

    async def _listed(self, index: int, wait_s: float) -> None:
        """Return once there is a list, newer than `index`, or after `wait_s` seconds.

        Raises:
            RegistryUnreachable: the hub is not connected.
        """
        if self._task is None:
            self._task = asyncio.create_task(
                supervise(self._keep_connected, "seaport"), name=f"connection to {self._url}"
            )
        until = self._clock() + (wait_s if index else _CONNECT_S)
        while not self._error and (not self._index or self._index == index):
            left_s = until - self._clock()
            if left_s <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
        if self._error or not self._index:
            raise RegistryUnreachable(f"{self._url}: {self._error or 'no list of services yet'}")

    def _catalog(self) -> Catalog:
        roles = {each.get("role") for each in self._metas.values() if isinstance(each, dict)}
        names = (each for each in roles if isinstance(each, str) and is_service(each))
        return Catalog(services=tuple(sorted(names)), index=self._index, taken_at=self._clock())

    async def _snapshot(self, service: str) -> Snapshot:
        index = self._index
        entries = [
            _entry(id_, meta, service)
            for id_, meta in self._metas.items()
            if isinstance(meta, dict) and meta.get("role") == service
        ]
        instances, rejected = await self._selection.select(service, entries)
        return Snapshot(
            service=service,
            instances=instances,
            known=bool(entries),
            index=index,
            taken_at=self._clock(),
            withdrawn=tuple(sorted(rejected)),
            rejected=tuple(rejected.items()),
        )

    # The connection

    async def _keep_connected(self) -> None:
        failures = 0
        rng = random.Random()
        while True:
            try:
                await self._follow()
            except (OSError, TimeoutError, RegistryError, asyncio.IncompleteReadError) as error:
                self._error = str(error) or type(error).__name__
            self._publish()
            failures = 0 if self._error == "" else failures + 1
            await asyncio.sleep(_BACKOFF.delay_s(min(failures, 8), rng))

    def _publish(self) -> None:
        """Wake those who wait for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _follow(self) -> None:
        """Read what the hub says until the connection ends."""
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(
                self._host, self._port, limit=_LINE_BYTES
            )
        beating = asyncio.create_task(_heartbeats(writer), name="seaport heartbeats")
        metas: dict[str, Any] = {}
        synced = False
        try:
            while True:
                async with asyncio.timeout(_SILENT_S):
                    line = await _line(reader)
                kind, *rest = _message(line)
                if kind == "register" and len(rest) > 1 and isinstance(rest[0], str):
                    if len(metas) >= _MAX_ENTRIES:
                        raise RegistryError(f"more than {_MAX_ENTRIES} entries")
                    metas[rest[0]] = rest[1]
                elif kind == "free" and rest:
                    metas.pop(str(rest[0]), None)
                elif kind == "synced":
                    synced = True
                else:
                    continue
                if synced and (kind == "synced" or metas != self._metas or self._error):
                    self._metas, self._error = dict(metas), ""
                    self._index += 1
                    self._publish()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ValueError as error:
        raise RegistryError(f"a line of more than {_LINE_BYTES} bytes") from error
    if not line:
        raise RegistryError("the hub closed the connection")
    return line


def _message(line: bytes) -> list[Any]:
    try:
        message = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RegistryError(f"{line[:80]!r} is not a message of seaport") from error
    if not isinstance(message, list) or not message:
        raise RegistryError(f"{line[:80]!r} is not a message of seaport")
    return message


async def _heartbeats(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b'["heartbeat"]\n')
        await writer.drain()
        await asyncio.sleep(_HEARTBEAT_S)


def _entry(entry_id: str, meta: dict[str, Any], service: str) -> _Entry:
    """The foreign worker in an entry, whose content is anybody's."""
    try:
        host, port = meta.get("host"), meta.get("port")
        if not isinstance(host, str) or type(port) is not int:
            raise RegistryError(f"host {host!r} and port {port!r} are not text and a number")
        own = {
            key: str(meta[key])
            for key in (*FOREIGN_KEYS, SCHEME_KEY)
            if isinstance(meta.get(key), str | int | float) and key != "version"
        }
        if major := _MAJOR.match(str(meta.get("version", ""))):
            own["version"] = major[1]
        host = host.removeprefix("::ffff:")  # as Node.js says IPv4 addresses
        instance = foreign_instance(
            service, host=host, port=port, entry_id=check_id(entry_id[:40]), meta=own
        )
    except FingerpostError as error:
        return _Entry(entry_id[:128], None, healthy=False, rejection=error.message[:500])
    return _Entry(instance.id, instance)
