"""Regions of system shared memory that clients on this host have registered, as Triton has them.

A region is part of a file in `/dev/shm`, which belongs to its client: he may change, shrink or
remove it at any time. So nothing is mapped: a page that is gone would end the process (SIGBUS).
Inputs are read by `pread` and outputs written by `pwrite`, for which a file that has become shorter
is an error like any other. The copy takes a millisecond for 6 MB; frames without one are in
`serving.frames`.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import InvalidRequest, Overloaded, UnknownPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Region", "SharedRegions"]

_FOLDER: Final = "/dev/shm"  # noqa: S108 - where POSIX puts shared memory
_KEY: Final = re.compile(r"/?([A-Za-z0-9_.,+=:@-]{1,200})", re.ASCII)
_MAX_NAME: Final = 255
# Each takes a descriptor.
_MAX_REGIONS: Final = 256
# From here on bytes are copied in a thread: a quarter of a millisecond.
_MANY_BYTES: Final = 1 << 20


class Region:
    """A registered region; its file stays open while somebody uses it.

    Attributes:
        name: by which requests name it.
        key: of the shared memory, such as `/input`.
        offset: where in the file it begins, in bytes.
        byte_size: how long it is.
    """

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self._descriptor, self._writable = _open(key)
        self._users = 1  # the registration
        try:
            self._check_end(self.offset + self.byte_size)
        except BaseException:
            self.release()
            raise

    def hold(self) -> None:
        """Keep the file open until `release`."""
        self._users += 1

    def release(self) -> None:
        """End one use; the last one closes the file."""
        self._users -= 1
        if not self._users:
            os.close(self._descriptor)

    def check(self, offset: int, byte_size: int, what: str) -> None:
        """Raise `InvalidRequest` where a part is not within the region."""
        if offset + byte_size > self.byte_size:
            raise InvalidRequest(
                f"{what}: bytes {offset:,} to {offset + byte_size:,} are not within region "
                f"{self.name!r}, which has {self.byte_size:,}"
            )

    async def read(self, offset: int, byte_size: int, what: str) -> memoryview:
        """A copy of a part of the region.

        Raises:
            InvalidRequest: it is not within the region, or the file has become shorter.
        """
        self.check(offset, byte_size, what)
        place = self.offset + offset
        if byte_size < _MANY_BYTES:
            data = os.pread(self._descriptor, byte_size, place)
        else:
            data = await self._in_thread(os.pread, byte_size, place)
        if len(data) != byte_size:
            self._check_end(place + byte_size)
            raise InvalidRequest(f"{what}: region {self.name!r} could not be read: try again")
        return memoryview(data)

    async def write(self, data: bytes, offset: int, what: str) -> None:
        """Write into the region.

        Raises:
            InvalidRequest: it may only be read, or the file has become shorter.
        """
        place = self.offset + offset
        self._check_end(place + len(data))  # else writing would make the file longer
        if not self._writable:
            raise InvalidRequest(f"{what}: the worker may only read region {self.name!r}")
        if len(data) < _MANY_BYTES:
            os.pwrite(self._descriptor, data, place)
        else:
            await self._in_thread(os.pwrite, data, place)

    def entry(self) -> dict[str, object]:
        """The region as Triton's status has it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }

    async def _in_thread(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Use the file in a thread, which keeps it open also when the request is cancelled."""

        async def run() -> Any:
            self.hold()
            try:
                return await asyncio.to_thread(call, self._descriptor, *arguments)
            finally:
                self.release()

        return await asyncio.shield(asyncio.ensure_future(run()))

    def _check_end(self, end: int) -> None:
        size = os.fstat(self._descriptor).st_size
        if end > size:
            raise InvalidRequest(
                f"region {self.name!r} ends at byte {end:,}, but shared memory {self.key!r} has "
                f"{size:,}: create it with that size, and do not shrink it"
            )


class SharedRegions:
    """The regions of a worker, by name.

    Args:
        enabled: whether clients may use shared memory.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region.

        Raises:
            UnknownPath: shared memory is off.
            InvalidRequest: a name that is not valid or is taken, a key that names no shared memory,
                or one that is shorter than the region.
            Overloaded: too many are registered.
        """
        self.check_enabled()
        if not 0 < len(name) <= _MAX_NAME:
            raise InvalidRequest(f"the name of a region has 1 to {_MAX_NAME} characters")
        if name in self._regions:
            raise InvalidRequest(f"region {name!r} is registered already: unregister it first")
        if not byte_size:
            raise InvalidRequest(f"region {name!r} has byte_size 0: give the bytes that it has")
        if len(self._regions) >= _MAX_REGIONS:
            raise Overloaded(f"{_MAX_REGIONS} regions are registered here: unregister some first")
        self._regions[name] = Region(name, key, offset, byte_size)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them; requests that use it are answered.

        Raises:
            UnknownPath: shared memory is off.
        """
        self.check_enabled()
        if not name:
            self.close()
        elif (region := self._regions.pop(name, None)) is not None:
            region.release()

    def close(self) -> None:
        """Forget all regions."""
        for region in self._regions.values():
            region.release()
        self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, object]]:
        """A region, or all of them.

        Raises:
            UnknownPath: shared memory is off.
            InvalidRequest: there is none of that name.
        """
        self.check_enabled()
        found = [self._find(name, "the status")] if name else self._regions.values()
        return [each.entry() for each in found]

    @contextmanager
    def using(self, names: Sequence[str], what: str) -> Iterator[list[Region]]:
        """Keep regions open inside the `with` block.

        Raises:
            UnknownPath: shared memory is off.
            InvalidRequest: there is none of a name.
        """
        if names:
            self.check_enabled()
        found = [self._find(name, what) for name in names]
        for each in found:
            each.hold()
        try:
            yield found
        finally:
            for each in found:
                each.release()

    def check_enabled(self) -> None:
        """Raise `UnknownPath` where shared memory is off."""
        if not self.enabled:
            raise UnknownPath(
                "shared memory is off here: send the bytes, or start the worker with "
                "--shared-memory"
            )

    def _find(self, name: str, what: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise InvalidRequest(
                f"{what}: no region {name[:_MAX_NAME]!r} is registered here: register it first"
            )
        return region


def _open(key: str) -> tuple[int, bool]:
    """The descriptor of shared memory, and whether it may be written."""
    match = _KEY.fullmatch(key)
    if match is None or match[1] in (".", ".."):
        raise InvalidRequest(
            f"{key[:_MAX_NAME]!r} is not a valid key of shared memory: use a slash and a name "
            "without further ones, such as /input"
        )
    path = f"{_FOLDER}/{match[1]}"
    # Not through a link, and without waiting for the other end of a pipe.
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    writable = True
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | flags)
        except PermissionError:
            descriptor, writable = os.open(path, os.O_RDONLY | flags), False
    except OSError as error:
        raise InvalidRequest(
            f"shared memory {key!r} cannot be opened: {error.strerror}: create it on this host, "
            "for a user whom the worker's may read"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRequest(f"{key!r} is not shared memory: create it with shm_open")
    return descriptor, writable
