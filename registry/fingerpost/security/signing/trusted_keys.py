"""The public keys that signatures are believed of, and what each may sign for."""

from __future__ import annotations

import fnmatch
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.security.keys import PublicKeys
from fingerpost.security.secret_file import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TrustedKeys", "TrustedKeysFile"]

logger = logging.getLogger(__name__)

_WHAT: Final = "the file of public keys"


class TrustedKeys:
    """Public keys, each for some services or for all. Immutable.

    A set of keys is a JWKS document. A key's own member `services` lists the services that it may
    sign for, with `*` and `?` as in a shell: `["flowers", "team-a-*"]`. Without it, it is all.

    Args:
        keys: the keys.
        services: the patterns of each key that is limited, by `kid`.
    """

    __slots__ = ("_keys", "_services")

    def __init__(self, keys: PublicKeys, services: Mapping[str, tuple[str, ...]]) -> None:
        self._keys = keys
        self._services = dict(services)

    @classmethod
    def decode(cls, content: bytes, source: object) -> TrustedKeys:
        """The keys of a JWKS document; see the class for `services`.

        Raises:
            ConfigurationError: see `PublicKeys.decode`; no key; or `services` is not a list.
        """
        keys = PublicKeys.decode(content, source)
        if not len(keys):
            raise ConfigurationError(
                f"{source} holds no public key: every signature would be refused"
            )
        services: dict[str, tuple[str, ...]] = {}
        for kid, written in zip(
            keys.kids, msgspec.json.decode(content, type=_Document).keys, strict=True
        ):
            if "services" not in written:
                continue
            patterns = written["services"]
            if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
                raise ConfigurationError(
                    f"{source}: services of the key {kid} is {patterns!r:.100}: use a list of "
                    'names, such as ["flowers", "team-a-*"]'
                )
            services[kid] = tuple(patterns)
        return cls(keys, services)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def verify(self, kid: str, signature: bytes, data: bytes) -> bool:
        """Whether the key `kid` made that signature of `data`."""
        return self._keys.verify(kid, signature, data)

    def may_sign_for(self, kid: str, service: str) -> bool:
        """Whether the key may sign for that service or model."""
        patterns = self._services.get(kid)
        return patterns is None or any(fnmatch.fnmatchcase(service, each) for each in patterns)


class TrustedKeysFile:
    """Trusted keys whose file may be replaced at any time.

    While the file is missing or not valid, as in the middle of being written, the keys that were
    read last stay in use, and one line in the log says so.

    Raises:
        ConfigurationError: the file cannot be read, or see `TrustedKeys.decode`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _state(path)
        self._keys = TrustedKeys.decode(read_file(path, _WHAT), path)
        self._in_trouble = False

    def current(self) -> TrustedKeys:
        """The keys to verify with now; another object after each change. Costs one `stat`."""
        try:
            state = _state(self.path)
            if state != self._seen:
                self._keys = TrustedKeys.decode(read_file(self.path, _WHAT), self.path)
                self._seen = state
                logger.info("%d public keys were read again from %s", len(self._keys), self.path)
            self._in_trouble = False
        except ConfigurationError as error:
            if not self._in_trouble:
                logger.warning("%s; the keys read before stay in use", error)
            self._in_trouble = True
        return self._keys


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def _state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{_WHAT}, {path}, cannot be read: {error.strerror}") from error
    return state.st_ctime_ns, state.st_ino, state.st_size
