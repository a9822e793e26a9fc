"""One watch out of those of several registries."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self

from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.watch import V, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fingerpost.registry.watching.watch import Load

__all__ = ["SeveralWatch"]

# A poll reads memory only. A failure of all parts, and the age of the view, are noticed a second
# later; changes at once.
_CONFIG: Final = WatchConfig(wait_s=1.0, self_preservation=None)
# How long the first view of one registry waits for the first ones of the others, in seconds.
_OTHERS_S: Final = 1.0
# How long the first view of any registry is waited for, in seconds.
_FIRST_S: Final = 5.0


class SeveralWatch(Watch[V]):
    """Publishes the merged view whenever one of its parts changes.

    Each part keeps its own last good view and its own self-preservation; this watch fails only
    while all of them do.

    Args:
        parts: starts a use of each registry's own watch.
        release: ends a use of all of them.
        merge: makes one view of those that there are, at least one.
        name: what is watched, for logs and errors.
        load: see `Watch`.
    """

    def __init__(
        self,
        parts: Callable[[], Sequence[Watch[V]]],
        release: Callable[[], Awaitable[None]],
        merge: Callable[[Sequence[V]], V],
        *,
        name: str,
        load: Load[V] | None = None,
    ) -> None:
        super().__init__(self._poll_parts, name=name, config=_CONFIG, load=load)
        self._start_parts = parts
        self._release = release
        self._merge = merge
        self._parts: Sequence[Watch[V]] = ()
        self._seen: list[int] = []

    def start(self) -> Self:
        """See `Watch.start`; the parts start too."""
        if not self.running:
            self._parts = self._start_parts()
            self._seen = [0] * len(self._parts)
        super().start()
        return self

    async def aclose(self) -> None:
        """See `Watch.aclose`; the use of the parts ends."""
        running = self.running
        await super().aclose()
        if running:
            await self._release()

    async def _poll_parts(self, index: int, wait_s: float) -> tuple[V, int]:
        if index:
            await self._changed_part(self._parts, wait_s)
        elif not any(each.view for each in self._parts):
            await self._changed_part(self._parts, _FIRST_S)
            if any(each.view for each in self._parts):
                await asyncio.gather(*map(_ready, self._parts))
        views = [each.view for each in self._parts if each.view is not None]
        errors = [each.error for each in self._parts if each.error is not None]
        if errors and len(errors) == len(self._parts):
            raise errors[0]
        if not views:
            raise RegistryUnreachable(f"no answer about {self._name} within {_FIRST_S:g} s")
        self._seen = [0 if each.view is None else each.view.index for each in self._parts]
        merged = self._merge(views)
        return merged, merged.index

    async def _changed_part(self, parts: Sequence[Watch[V]], wait_s: float) -> None:
        """Wait until one of the views differs from what was seen of it, for `wait_s` at most."""
        waiting = [
            asyncio.ensure_future(part.changed(seen))
            for part, seen in zip(parts, self._seen, strict=True)
        ]
        try:
            await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _ready(part: Watch[V]) -> None:
    """Wait for the first view of a part, but not for long."""
    with contextlib.suppress(RegistryError):
        await part.ready(_OTHERS_S)
