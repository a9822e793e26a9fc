"""Which versions of a model are wanted: policies and aliases. Pure.

A model's folder may have a file `versions.toml` beside its versions::

    policy = "latest:2"      # latest:N, specific:1,3 or all; latest:1 without it

    [aliases]
    stable = 3               # clients ask for flowers@stable
    canary = 4
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from fingerpost.basics.config_file import decode_toml
from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_alias
from fingerpost.registry.old_spellings import warn_old_spelling

__all__ = ["SETTINGS_FILE", "VersionPolicy", "VersionSettings", "parse_settings"]

SETTINGS_FILE: Final = "versions.toml"

_FORM: Final = re.compile(r"latest:([1-9][0-9]{0,3})|specific:([0-9]{1,18}(?:,[0-9]{1,18})*)|(all)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPolicy:
    """Chooses the newest `latest` versions, or the `specific` ones, or where neither is set all."""

    latest: int = 0
    specific: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """Read `latest:N`, `specific:1,3` or `all`. Raises `ConfigurationError`."""
        match = _FORM.fullmatch(text.replace(" ", ""))
        if match is None:
            raise ConfigurationError(
                f"version policy {text!r}: expected latest:N (N of 1 to 9999), specific:1,3 or all"
            )
        if match[1]:
            return cls(latest=int(match[1]))
        return cls(specific=frozenset(map(int, match[2].split(","))) if match[2] else frozenset())

    def choose(self, versions: Iterable[int]) -> frozenset[int]:
        """The wanted ones among `versions`."""
        if self.latest:
            return frozenset(sorted(versions, reverse=True)[: self.latest])
        return frozenset(versions) & self.specific if self.specific else frozenset(versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSettings:
    """The operator's settings for a model's versions.

    Attributes:
        policy: chooses which versions are served.
        aliases: version numbers by alias.
    """

    policy: VersionPolicy = field(default_factory=lambda: VersionPolicy(latest=1))
    aliases: Mapping[str, int] = field(default_factory=dict)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    policy: str | None = None
    aliases: dict[str, int] = {}
    labels: dict[str, int] | UnsetType = UNSET  # what release 0.1.0 has for `aliases`


def parse_settings(
    text: bytes, default: VersionPolicy, source: str = SETTINGS_FILE
) -> VersionSettings:
    """Read `versions.toml`; where it names no policy, `default` applies.

    Args:
        text: the file's content.
        default: the policy where the file names none.
        source: the file's path, for errors and the log.

    Raises:
        ConfigurationError: it is not UTF-8 or not TOML, has an unknown key, or a value that is not
            valid.
    """
    read = decode_toml(text, _File, source)
    try:
        aliases = read.aliases if read.labels is UNSET else _renamed(read, read.labels, source)
        for alias in aliases:
            check_alias(alias)
        policy = default if read.policy is None else VersionPolicy.parse(read.policy)
    except (ConfigurationError, InvalidName) as error:
        raise ConfigurationError(f"{source}: {error.message}") from error
    return VersionSettings(policy=policy, aliases=aliases)


def _renamed(read: _File, labels: dict[str, int], source: str) -> dict[str, int]:
    if read.aliases:
        raise ConfigurationError("[labels] is the old name of [aliases]: keep only [aliases]")
    warn_old_spelling("[labels]", "[aliases]", source, "rename it in the file")
    return labels
