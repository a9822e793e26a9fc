"""Adds a caller to a policy file, and leaves all else in it as it is, comments too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.api_keys import hash_key, make_key
from fingerpost.security.callers.policy import MAX_POLICY_BYTES, Policy, check_caller_name

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
    one. A new file is 0600; an existing one keeps its rights.

    Raises:
        ConfigurationError: the name is in use or not valid, or the file is not valid or cannot be
            written.
    """
    check_caller_name(name)
    check_caller_name(tenant)
    try:
        content, mode = read_config(path, most=MAX_POLICY_BYTES), path.stat().st_mode & 0o777
    except FileNotFoundError:
        content, mode = b"", 0o600
    policy = Policy.parse(content, path)
    if any(each.caller.identity == name for each in policy.entries):
        raise ConfigurationError(f"{path} has a caller {name!r} already: choose another name")
    key, made_tenant = make_key(), tenant not in policy.tenants
    lines = ["" if content.endswith(b"\n") or not content else "\n"]
    if made_tenant:
        lines += [f'\n[tenants."{tenant}"]\n']
    lines += [f'\n[[callers]]\nname = "{name}"\ntenant = "{tenant}"\n']
    if role:
        lines += [f'role = "{role}"\n']
    lines += [f'keys = ["{hash_key(key)}"]\n']
    changed = content + "".join(lines).encode()
    Policy.parse(changed, path)  # never leaves a file that servers would refuse
    _replace(path, changed, mode)
    return Added(key, made_tenant)


def _replace(path: Path, content: bytes, mode: int) -> None:
    target = path.resolve()
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
