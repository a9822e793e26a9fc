"""The allow-list for every name and id that becomes part of a URL.

Registries put names into paths, and client libraries do not quote them: with py-consul,
`health.service("../../kv/secret")` reads a key of the key-value store. So nothing outside this
list reaches a registry, a path or a file name.
"""

from __future__ import annotations

import re
from typing import Final

from fingerpost.errors import InvalidName

__all__ = [
    "check_alias",
    "check_id",
    "check_id_or_address",
    "check_service",
    "check_version",
    "is_service",
    "split_reference",
]

_SERVICE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", re.ASCII)
_VERSION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_ALIAS: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def check_service(name: str) -> str:
    """Return `name` if it is a valid name of a service or a model, else raise `InvalidName`.

    At most 63 lower-case letters, digits and hyphens, as a DNS label has (RFC 1123), so that
    `NAME.service.consul` resolves.
    """
    if not _SERVICE.fullmatch(name):
        raise InvalidName(
            f"{name!r} is not a valid service name: use 1 to 63 lower-case letters, digits and "
            "hyphens, with no hyphen at either end"
        )
    return name


def is_service(name: str) -> bool:
    """Whether it is a valid name of a service."""
    return _SERVICE.fullmatch(name) is not None


def check_id(name: str) -> str:
    """Return `name` if it is a valid id of an instance or a check, else raise `InvalidName`."""
    if not _ID.fullmatch(name) or ".." in name:
        raise InvalidName(
            f"{name!r} is not a valid id: use 1 to 128 letters, digits, dots, hyphens and "
            "underscores, with a letter or digit at either end and no two dots in a row"
        )
    return name


def check_id_or_address(name: str) -> str:
    """Return `name` if it is a valid id or a `HOST:PORT`, else raise `InvalidName`."""
    host, colon, port = name.rpartition(":")
    if colon and host and port.isascii() and port.isdigit():
        return name
    return check_id(name)


def check_version(version: str) -> str:
    """Return `version` if it is a model version (a decimal number), else raise `InvalidName`."""
    if not _VERSION.fullmatch(version):
        raise InvalidName(f"{version!r} is not a valid model version: use a whole number such as 3")
    return version


def check_alias(alias: str) -> str:
    """Return `alias` if it is a valid alias (`stable`, `canary`), else raise `InvalidName`."""
    if not _ALIAS.fullmatch(alias):
        raise InvalidName(
            f"{alias!r} is not a valid alias: use 1 to 63 lower-case letters, digits and hyphens, "
            "starting with a letter, such as 'stable'"
        )
    return alias


def split_reference(reference: str) -> tuple[str, str | None, str | None]:
    """Split `flowers`, `flowers@3` or `flowers@stable` into `(model, version, alias)`.

    What follows the `@` is a version if it is a number, else an alias; at most one is not None.
    """
    if not isinstance(reference, str):
        raise InvalidName(f"{reference!r} is not a model's name: use text such as flowers@3")
    model, at, rest = reference.partition("@")
    check_service(model)
    if not at:
        return model, None, None
    if rest.isascii() and rest.isdigit():
        return model, check_version(rest), None
    return model, None, check_alias(rest)
