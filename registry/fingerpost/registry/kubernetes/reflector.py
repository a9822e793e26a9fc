"""A copy of a collection in memory, kept up to date by one watch (client-go's Reflector)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import msgspec

from fingerpost.basics.supervision import count_unexpected
from fingerpost.errors import FingerpostError, RegistryError, RegistryUnreachable
from fingerpost.registry.kubernetes.codec import WatchEvent
from fingerpost.registry.kubernetes.http import Expired

if TYPE_CHECKING:
    from random import Random

    from fingerpost.basics.backoff import Backoff
    from fingerpost.registry.kubernetes.http import KubernetesHttp
    from fingerpost.registry.kubernetes.lists import Collection

__all__ = ["Named", "Reflector"]

logger = logging.getLogger(__name__)

# How much later than it was asked to a server may end a watch, in seconds.
_SLACK_S: Final = 5.0
# A watch that ended sooner was not held at all; the next one waits.
_SHORT_S: Final = 0.5


class Named(Protocol):
    """What a collection is made of."""

    @property
    def name(self) -> str:
        """The object's name, which is its own in its namespace."""
        ...

    @property
    def version(self) -> str:
        """Its resource version."""
        ...


T = TypeVar("T", bound=Named)


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0


class _Bookmark(msgspec.Struct, rename="camel"):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


_decode_event: Final = msgspec.json.Decoder(WatchEvent).decode
_decode_status: Final = msgspec.json.Decoder(_Status).decode
_decode_bookmark: Final = msgspec.json.Decoder(_Bookmark).decode


class Reflector(Generic[T]):
    """Lists a collection, then watches it from the list's resource version, again and again.

    A watch lasts `wait_s` and is then begun again from the newest version seen, which bookmarks
    keep new while nothing changes: so a connection that is dead is noticed `wait_s` + 5 s later.
    The list is read again, and compared, where the server no longer has that version (410 Gone),
    and after every error: a server that lost its memory would be silent about all that is new, as
    Consul's is. It is read again too where a version goes back.

    Args:
        http: the API server.
        collection: what to keep a copy of.
        decode: decodes an object.
        changed: called with the old and the new of an object, one of them None where it appeared or
            vanished; and at the end of a list or a failure with None and None.
        wait_s: how long the server holds a watch, in seconds.
        backoff: the delays after failures.

    Attributes:
        items: the objects by name.
        version: the resource version that they have; empty before the first list.
        confirmed_at: when the server last confirmed them, by `clock`.
        error: why they may be out of date; None where they are not.
        ready: set by the first list or the first failure.
        lists: how many lists were begun.
    """

    def __init__(
        self,
        http: KubernetesHttp,
        collection: Collection,
        decode: Callable[[msgspec.Raw], T],
        changed: Callable[[T | None, T | None], None],
        *,
        wait_s: float,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
        rng: Random,
    ) -> None:
        self._http = http
        self._collection = collection
        self._decode = decode
        self._changed = changed
        self._wait_s = wait_s
        self._backoff = backoff
        self._clock = clock
        self._rng = rng
        self._stale = True
        self._failures = 0
        self.items: dict[str, T] = {}
        self.version = ""
        self.confirmed_at = 0.0
        self.error: FingerpostError | None = None
        self.ready = asyncio.Event()
        self.lists = 0

    async def run(self) -> None:
        """Keep the copy up to date until cancelled."""
        while True:
            try:
                if self._stale:
                    await self._list()
                began = self._clock()
                await self._watch()
                self._failures = 0
                if self._clock() - began < _SHORT_S:
                    await asyncio.sleep(self._rng.uniform(_SHORT_S, 2 * _SHORT_S))
                continue
            except Expired as error:
                logger.info("watch of %s: listing again: %s", self._collection, error)
                self._stale = True
                if not self._failures:
                    self._failures = 1  # at once, but not again and again
                    continue
            except FingerpostError as error:
                self._failed(error)
            except Exception as error:  # a bug must not end the watch silently
                count_unexpected("watch", error)
                self._failed(RegistryError(f"{self._collection}: {error!r}"))
            await asyncio.sleep(self._backoff.delay_s(self._failures, self._rng))
            self._failures += 1

    def _failed(self, error: FingerpostError) -> None:
        self._stale = True
        self.error = error
        self.ready.set()
        self._changed(None, None)

    async def _list(self) -> None:
        self.lists += 1
        items, version = await self._collection.read(self._decode)
        found = {each.name: each for each in items}
        old, self.items = self.items, found
        self.version, self.confirmed_at = version, self._clock()
        self.error, self._stale = None, False
        for name in old.keys() - found.keys():
            self._changed(old[name], None)
        for name, each in found.items():
            if (before := old.get(name)) != each:
                self._changed(before, each)
        self.ready.set()
        self._changed(None, None)

    async def _watch(self) -> None:
        held_s = max(1, round(self._wait_s))
        params = self._collection.params | {
            "resourceVersion": self.version,
            "timeoutSeconds": str(held_s),
        }
        try:
            async with (
                asyncio.timeout(held_s + _SLACK_S),
                contextlib.aclosing(self._http.watch(self._collection.resource, params)) as lines,
            ):
                async for line in lines:
                    self.confirmed_at = self._clock()
                    if line:
                        self._event(line)
        except TimeoutError as error:
            raise RegistryUnreachable(
                f"the watch of {self._collection} did not end after {held_s + _SLACK_S:g} s"
            ) from error

    def _event(self, line: bytes) -> None:
        try:
            event = _decode_event(line)
            if event.type == "ERROR":
                status = _decode_status(event.object)
                kind = (
                    Expired if status.code == 410 or status.reason == "Expired" else RegistryError
                )
                raise kind(f"the watch of {self._collection}: {status.code} {status.message}")
            if event.type == "BOOKMARK":
                self._advance(_decode_bookmark(event.object).metadata.resource_version)
                return
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RegistryError(
                f"the watch of {self._collection}: not an event: {error}; it begins {line[:100]!r}"
            ) from error
        new = self._decode(event.object)
        self._advance(new.version)
        if event.type == "DELETED":
            before = self.items.pop(new.name, None)
            if before is not None:
                self._changed(before, None)
        elif event.type in ("ADDED", "MODIFIED"):
            before = self.items.get(new.name)
            self.items[new.name] = new
            self._changed(before, new)

    def _advance(self, version: str) -> None:
        """Note the version of an event. Versions are numbers that only grow, says Kubernetes."""
        self._failures = 0
        if version.isdigit() and self.version.isdigit() and int(version) < int(self.version):
            raise Expired(
                f"the server's resource version went back from {self.version} to {version}"
            )
        self.version = version
