"""What one client of xDS follows, and what it was told: decisions, without a network.

The rules are those of the protocol: a response is accepted or rejected by the next request of its
type, which carries the response's nonce; a request with an older nonce is about an older response.
In the *state of the world* variant a response has all resources that are asked for, in the
incremental one (*delta*) only what is new, changed or gone. See
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EVERY", "Session", "TooManyNames"]

# A name that asks for all resources of a type; so does a first request without names.
EVERY: Final = "*"


class TooManyNames(Exception):
    """A client asks for more names than it may."""


class _Followed:
    """What is followed of one type."""

    __slots__ = ("asked", "every", "named", "names", "nonce", "told")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.every = False
        self.named = False  # a request without names means none, once names were given
        self.asked = False  # names came that have had no answer yet
        self.nonce = ""
        # The version of each resource that was sent, None for one that was said not to exist.
        self.told: dict[str, str | None] = {}


class Session:
    """One client's stream.

    Args:
        max_names: most names that it may follow, of all types together.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._types: dict[str, _Followed] = {}
        self._nonces = 0

    def names(self, type_url: str) -> frozenset[str]:
        """The names that are followed of a type, without `EVERY`."""
        followed = self._types.get(type_url)
        return frozenset(followed.names) if followed else frozenset()

    def follows_every(self, type_url: str) -> bool:
        """Whether it follows all resources of a type."""
        followed = self._types.get(type_url)
        return followed is not None and followed.every

    @property
    def types(self) -> frozenset[str]:
        """The types that it has asked for."""
        return frozenset(self._types)

    def is_stale(self, type_url: str, nonce: str) -> bool:
        """Whether a request answers another response than the last one of its type."""
        followed = self._types.get(type_url)
        return bool(nonce) and (followed is None or nonce != followed.nonce)

    def set_names(self, type_url: str, names: Iterable[str]) -> None:
        """Follow exactly these names, as a request of the state of the world says.

        Raises:
            TooManyNames: they are more than it may follow.
        """
        followed = self._types.setdefault(type_url, _Followed())
        wanted = set(names)
        if wanted:
            followed.named = True
        every = EVERY in wanted or not (wanted or followed.named)
        wanted.discard(EVERY)
        self._check(type_url, len(wanted))
        if wanted - followed.names or (every and not followed.every):
            followed.asked = True
        followed.names, followed.every = wanted, every
        if not every:
            followed.told = {name: each for name, each in followed.told.items() if name in wanted}

    def change_names(
        self,
        type_url: str,
        subscribe: Iterable[str],
        unsubscribe: Iterable[str],
        known: Mapping[str, str],
    ) -> None:
        """Follow further names, and no longer others, as an incremental request says.

        Args:
            type_url: the type of the resources.
            subscribe: names to follow.
            unsubscribe: names to follow no longer.
            known: versions that the client has from an earlier stream.

        Raises:
            TooManyNames: they are more than it may follow.
        """
        first = type_url not in self._types
        followed = self._types.setdefault(type_url, _Followed())
        added, removed = set(subscribe), set(unsubscribe)
        if EVERY in added or (first and not added):
            followed.every = followed.asked = True
        if EVERY in removed:
            followed.every = False
        added.discard(EVERY)
        self._check(type_url, len(followed.names | added))
        if first:
            followed.told.update(known)
        # Who subscribes again wants an answer, even if nothing has changed.
        for name in added - known.keys():
            followed.told.pop(name, None)
        followed.asked = followed.asked or bool(added)
        followed.names = (followed.names | added) - removed
        for name in removed:
            followed.told.pop(name, None)

    def changes(
        self, type_url: str, current: Mapping[str, str]
    ) -> tuple[list[str], list[str]] | None:
        """The names whose resources are new or changed, and those that do not exist.

        None where the client has been told all of it.

        Args:
            type_url: the type.
            current: the version of each resource that is followed and exists.
        """
        followed = self._types.get(type_url)
        if followed is None:
            return None
        told = followed.told
        changed = [name for name, version in current.items() if told.get(name) != version]
        known = told.keys() if followed.every else followed.names
        gone = [name for name in known if name not in current and told.get(name, "") is not None]
        if changed or gone or (followed.asked and not current):
            return changed, gone
        return None if not followed.asked else ([], [])

    def sent(self, type_url: str, changed: Iterable[tuple[str, str]], gone: Iterable[str]) -> str:
        """Note a response; returns its nonce."""
        followed = self._types[type_url]
        followed.told.update(changed)
        for name in gone:
            if followed.every and name not in followed.names:
                followed.told.pop(name, None)
            else:
                followed.told[name] = None
        followed.asked = False
        self._nonces += 1
        followed.nonce = str(self._nonces)
        return followed.nonce

    def _check(self, type_url: str, count: int) -> None:
        others = sum(len(each.names) for url, each in self._types.items() if url != type_url)
        if others + count > self._max_names:
            raise TooManyNames(
                f"{others + count} names are asked for: one client may follow {self._max_names}"
            )
