"""Adds a caller to a policy file, and leaves all else in it as it is, comments too."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.api_keys import hash_key, make_key
from fingerpost.security.callers.policy import MAX_POLICY_BYTES, Policy, check_caller_name
from fingerpost.security.secret_file import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Added", "add_caller"]


class Added(NamedTuple):
    """A caller's new key, which is nowhere else, and whether its tenant was new."""

    key: str
    made_tenant: bool

    def __repr__(self) -> str:
        return "Added(key=***)"


def add_caller(path: Path, name: str, *, tenant: str, role: str) -> Added:
    """Make a key for a new caller, and append the caller to the file.

    The file is replaced as a whole, so servers that read it at the same time see the old or the new
    one. A new file is 0600; an existing one keeps its owner and its rights.

    Raises:
        ConfigurationError: the name is in use or not valid, or the file is not valid or cannot be
            written.
    """
    check_caller_name(name)
    check_caller_name(tenant)
    path = path.resolve()  # what a link leads to is replaced, not the link
    with _alone(path.parent):
        try:
            content, before = read_config(path, most=MAX_POLICY_BYTES), path.stat()
        except FileNotFoundError:
            content, before = b"", None
        policy = Policy.parse(content, path)
        if any(each.caller.identity == name for each in policy.entries):
            raise ConfigurationError(f"{path} has a caller {name!r} already: choose another name")
        key, made_tenant = make_key(), tenant not in policy.tenants
        changed = content + _added(
            name, tenant, role, hash_key(key), made_tenant=made_tenant, after=content
        )
        Policy.parse(changed, path)  # never leaves a file that servers would refuse
        write_file(path, changed, mode=0o600, replace=True, like=before)
    return Added(key, made_tenant)


def _added(
    name: str, tenant: str, role: str, hashed: str, *, made_tenant: bool, after: bytes
) -> bytes:
    """The tables to append to a file's content."""
    text = "" if after.endswith(b"\n") or not after else "\n"
    if made_tenant:
        text += f'\n[tenants."{tenant}"]\n'
    text += f'\n[[callers]]\nname = "{name}"\ntenant = "{tenant}"\n'
    if role:
        text += f'role = "{role}"\n'
    return f'{text}keys = ["{hashed}"]\n'.encode()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock of the folder, so that of two commands at once neither loses what it adds."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
