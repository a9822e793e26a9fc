"""The last good snapshots on disk, for a process that starts during an outage of the registry.

One file for each service, `SERVICE.json` in one folder::

    {"format": 1, "service": "flowers", "taken_unix_s": 1700000000.0, "index": 42,
     "instances": [{"id": ..., "host": ..., "ports": {"http": 8501}, ...}, ...]}

A file is written under another name and renamed, so that a reader sees the whole old one or the
whole new one. Several processes may share a folder: the last write wins, and any is good. What is
read is checked like a registry's answer: a file that is damaged, of another format, too large or of
another service is ignored with a log message, and so is each instance that is malformed or not
allowed by the address policy. Nothing here raises into a watch.

A snapshot's age after a restart is computed from the wall clock, the only clock that both processes
have. If that was set back meanwhile, a snapshot looks younger than it is, but never younger than
0 s.

Rejected: one file for all services (each change would write all), SQLite (a database for one value
a service), and writing at shutdown only (a crash is when it is needed).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.basics.config_file import read_config
from fingerpost.basics.supervision import supervise
from fingerpost.errors import FingerpostError, InvalidName
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.instance import Instance
from fingerpost.registry.names import check_service
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watching.signatures import entry_rejection

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.registry.watching.signatures import EntrySignatures

__all__ = ["SnapshotStore"]

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
_SUFFIX: Final = ".json"
# An instance is some 500 bytes, so this is 30,000 of one service.
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024
# Names come from the registry, so their number is bounded as that of watches is.
_MAX_SERVICES: Final = 1000


class _File(msgspec.Struct, kw_only=True):
    service: str
    taken_unix_s: float
    index: int
    instances: list[msgspec.Raw]
    format: int = _FORMAT


class _Form(msgspec.Struct):
    format: int


class SnapshotStore:
    """A folder of snapshots, written in the background; the folder is made when first needed.

    A watch puts a snapshot in after every good poll, so that the age on disk is right. Of those
    that come within `pause_s` of a service's last write only the newest is written.

    Args:
        folder: the folder of the files, with no others in it.
        address_policy: which instances may be read back; by default as `AddressPolicy`.
        signatures: likewise. A signature that has ended since will do: in a long outage nobody can
            renew it.
        pause_s: seconds between two writes of one service. More writes less; a process that is
            killed loses that much.
        clock: monotonic seconds, from the same clock as `Snapshot.taken_at`.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address_policy: AddressPolicy | None = None,
        signatures: EntrySignatures | None = None,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._address_policy = address_policy or AddressPolicy()
        self._signatures = signatures
        self._pause_s = pause_s
        self._clock = clock
        self._wall = wall
        self._waiting: dict[str, Snapshot] = {}
        self._written_at: dict[str, float] = {}
        self._more = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self.writes = 0
        self.errors = 0

    def put(self, snapshot: Snapshot) -> None:
        """Take a service's newest snapshot, to be written soon. Never blocks, never raises.

        Needs a running loop. A snapshot from disk and one without instances are not written.
        """
        service = snapshot.service
        if snapshot.from_disk or not snapshot.instances:
            return
        if service not in self._written_at and len(self._written_at) >= _MAX_SERVICES:
            oldest = min(self._written_at, key=self._written_at.__getitem__)
            del self._written_at[oldest]
            self._waiting.pop(oldest, None)
        self._written_at.setdefault(service, self._clock() - self._pause_s)
        self._waiting[service] = snapshot
        self._more.set()
        if self._task is None:
            self._closing = False
            self._task = asyncio.create_task(
                supervise(self._run, "snapshots"), name=f"snapshots in {self._folder}"
            )

    async def load(self, service: str) -> Snapshot | None:
        """The last snapshot written, marked `from_disk`; None where there is no usable one.

        The content of the folder never raises an error.

        Raises:
            InvalidName: `service` is not a valid name.
        """
        path = self._path(service)
        try:
            body = await asyncio.to_thread(_read, path)
            return None if body is None else self._decode(body, service, path)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError, FingerpostError) as bad:
            logger.warning("snapshot %s cannot be used, and is ignored: %s", path, bad)
            return None

    async def catalog(self) -> Catalog | None:
        """The services of which there is a usable snapshot, as old as the newest of them.

        None where there is none. It reads all files, because one may be damaged.
        """
        names = await asyncio.to_thread(_names, self._folder)
        loaded = [await self.load(each) for each in names]
        usable = [each for each in loaded if each is not None]
        if not usable:
            return None
        return Catalog(
            services=tuple(each.service for each in usable),
            index=1,
            taken_at=max(each.taken_at for each in usable),
            from_disk=True,
        )

    async def aclose(self) -> None:
        """Write what still waits, and end the background work. A later `put` begins it again."""
        task, self._task = self._task, None
        if task is not None:
            self._closing = True
            self._more.set()
            await task

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            self._more.clear()
            now = self._clock()
            due = [
                each
                for each in self._waiting
                if self._closing or now - self._written_at[each] >= self._pause_s
            ]
            for service in due:
                snapshot = self._waiting.pop(service)
                self._written_at[service] = now
                await self._write(snapshot)
            if due or (self._closing and not self._waiting):
                continue
            next_s = min(
                (self._written_at[each] + self._pause_s - now for each in self._waiting),
                default=None,
            )
            try:
                async with asyncio.timeout(next_s):
                    await self._more.wait()
            except TimeoutError:
                continue

    async def _write(self, snapshot: Snapshot) -> None:
        path = self._path(snapshot.service)
        try:
            body = self._encode(snapshot)
            if len(body) > _MAX_FILE_BYTES:
                raise ValueError(f"{len(body)} bytes are more than {_MAX_FILE_BYTES}")
            await asyncio.to_thread(_replace, path, body)
        except (OSError, ValueError, TypeError, msgspec.MsgspecError, FingerpostError) as error:
            self.errors += 1
            if not self._failing:
                logger.warning("snapshot %s cannot be written: %s", path, error)
            self._failing = True
        else:
            self.writes += 1
            self._failing = False

    def _path(self, service: str) -> Path:
        return self._folder / f"{check_service(service)}{_SUFFIX}"

    def _encode(self, snapshot: Snapshot) -> bytes:
        return msgspec.json.encode(
            {
                "format": _FORMAT,
                "service": snapshot.service,
                "taken_unix_s": self._wall() - snapshot.age_s(self._clock()),
                "index": snapshot.index,
                "instances": snapshot.instances,
            }
        )

    def _decode(self, body: bytes, service: str, path: Path) -> Snapshot | None:
        form = msgspec.json.decode(body, type=_Form).format
        if form != _FORMAT:
            raise ValueError(f"it has format {form}, and this version reads {_FORMAT}")
        file = msgspec.json.decode(body, type=_File)
        if file.service != service:
            raise ValueError(f"it is of service {file.service[:80]!r}")
        instances: dict[str, Instance] = {}
        for raw in file.instances:
            try:
                instance = msgspec.json.decode(raw, type=Instance)
            except (msgspec.MsgspecError, ValueError, FingerpostError) as bad:
                logger.warning("snapshot %s: an instance is ignored: %s", path, bad)
                continue
            rejection = entry_rejection(
                instance, self._address_policy, self._signatures, ended=False
            )
            if rejection is None and instance.service == service:
                instances[instance.id] = instance
            else:
                why = rejection.message if rejection else f"it is of service {instance.service!r}"
                logger.warning("snapshot %s: %s is ignored: %s", path, instance.id, why)
        if not instances:
            return None
        age_s = max(0.0, self._wall() - file.taken_unix_s)
        return Snapshot(
            service=service,
            instances=tuple(instances[each] for each in sorted(instances)),
            known=True,
            index=max(1, file.index),
            taken_at=self._clock() - age_s,
            from_disk=True,
        )


def _names(folder: Path) -> list[str]:
    """The services that have a file in the folder, sorted; at most `_MAX_SERVICES`."""
    names = []
    try:
        for path in folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(InvalidName):  # not a snapshot, or half written
                names.append(check_service(path.name.removesuffix(_SUFFIX)))
    except OSError as error:
        logger.warning("snapshots in %s cannot be listed: %s", folder, error)
    return sorted(names)[:_MAX_SERVICES]


def _read(path: Path) -> bytes | None:
    try:
        return read_config(path, most=_MAX_FILE_BYTES)
    except FileNotFoundError:
        return None


def _replace(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the process and thread in its name: several may write the same snapshot at once.
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with beside.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())  # or the new name may be an empty file after a power failure
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
