"""Another key for those who sign, in an order in which no signature is refused.

::

    FILE           the key that is signed with
    FILE.next      the new one, made known and not signed with yet
    FILE.retired   the public keys that are to be withdrawn

1. `publish`: the new public key is published beside the old one;
2. those who verify read it;
3. `sign`: the new key takes the place of FILE, which those who sign read again;
4. what was signed with the old key comes to its end;
5. `retire`: the old public key is withdrawn.

Each step may be done again, and a rotation that was broken off goes on where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fingerpost.errors import ConfigurationError
from fingerpost.registry.documents import LEASE_KEYS
from fingerpost.security.key_files import (
    load_public_keys,
    load_signing_key,
    save_public_keys,
    save_signing_key,
)
from fingerpost.security.keys import PublicKeys, SigningKey

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.registry import Registry

__all__ = ["FileKeys", "KeyRotation", "PublishedKeys", "RegistryKeys"]


class PublishedKeys(Protocol):
    """Where those who verify find the public keys."""

    async def read(self) -> PublicKeys:
        """The keys that are published now; none is an empty set."""
        ...

    async def write(self, keys: PublicKeys) -> None:
        """Publish these instead."""
        ...


class RegistryKeys:
    """The registry's document of lease keys."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def read(self) -> PublicKeys:
        """See `PublishedKeys.read`. Raises `RegistryError`, and `ConfigurationError`."""
        document = await self._registry.document(LEASE_KEYS)
        if document is None:
            return PublicKeys()
        return PublicKeys.decode(document, "the registry's document of lease keys")

    async def write(self, keys: PublicKeys) -> None:
        """See `PublishedKeys.write`."""
        await self._registry.publish(LEASE_KEYS, keys.encode())


class FileKeys:
    """A JWKS file, to be copied to the workers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> PublicKeys:
        """See `PublishedKeys.read`. Raises `ConfigurationError`."""
        return load_public_keys(self._path) if self._path.exists() else PublicKeys()

    async def write(self, keys: PublicKeys) -> None:
        """See `PublishedKeys.write`."""
        save_public_keys(keys, self._path)


class KeyRotation:
    """The keys of one FILE, and where they are published.

    Raises:
        ConfigurationError: by all methods, for a file that is missing or cannot be used.
    """

    def __init__(self, path: Path, published: PublishedKeys) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        self._retired = path.with_name(f"{path.name}.retired")
        self._published = published

    async def init(self) -> SigningKey:
        """Make FILE, and publish its public part beside those that there are."""
        key = SigningKey.generate()
        save_signing_key(key, self._path)
        await self._add(key.public)
        return key

    async def add(self) -> SigningKey:
        """Publish the public part of FILE, if it is not."""
        key = load_signing_key(self._path)
        await self._add(key.public)
        return key

    async def publish(self) -> SigningKey:
        """Step 1: make the new key, or take the one of a rotation broken off, and publish it."""
        load_signing_key(self._path)  # there must be one to rotate
        if not self._next.exists():
            save_signing_key(SigningKey.generate(), self._next)
        key = load_signing_key(self._next)
        await self._add(key.public)
        return key

    async def sign(self) -> SigningKey:
        """Step 3: the new key takes the place of FILE."""
        if not self._next.exists():
            raise ConfigurationError(
                f"there is no {self._next}: publish another key first (--stage publish)"
            )
        key = load_signing_key(self._next)
        if key.kid not in await self._published.read():
            raise ConfigurationError(
                f"the key in {self._next} is not published: run --stage publish first"
            )
        old = load_signing_key(self._path).public
        if self._retired.exists():
            old = old.having(load_public_keys(self._retired))
        save_public_keys(old, self._retired)
        self._next.replace(self._path)
        return key

    async def retire(self) -> tuple[str, ...]:
        """Step 5: withdraw the keys that were used before; returns their names."""
        if not self._retired.exists():
            raise ConfigurationError(
                f"there is no {self._retired}: no key of {self._path} waits for its withdrawal"
            )
        current = load_signing_key(self._path)
        gone = load_public_keys(self._retired).without([current.kid]).kids
        await self._published.write(
            (await self._published.read()).without(gone).having(current.public)
        )
        self._retired.unlink()
        return gone

    @property
    def stage(self) -> str:
        """The step that comes next: `publish`, `sign` or `retire`."""
        if self._retired.exists() and not self._next.exists():
            return "retire"
        return "publish"

    async def _add(self, keys: PublicKeys) -> None:
        before = await self._published.read()
        after = before.having(keys)
        if after != before:
            await self._published.write(after)
