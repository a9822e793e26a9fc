"""Filters that turn variables into what Fingerpost's units take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

try:
    from ansible.errors import AnsibleFilterError  # pyright: ignore[reportMissingImports]
except ImportError:  # in Fingerpost's own tests, which do without Ansible
    AnsibleFilterError = ValueError

DOCUMENTATION = """
name: command_line
short_description: Options of a fingerpost command, from a dictionary
version_added: 0.2.0
description:
  - C(max_batch=64) gives C(--max-batch 64), C(true) the option alone, C(false) nothing.
  - A list gives the option for each element.
positional: _input
options:
  _input:
    description: The options, named as on the command line, with C(_) in place of C(-).
    type: dict
    required: true
  name:
    description: The variable's name, for errors.
    type: str
"""
EXAMPLES = """
options: "{{ {'zone': 'rack-7', 'max_batch': 64} | fingerpost.cluster.command_line }}"
"""
RETURN = """
_value:
  description: The options in one line.
  type: str
"""

# What systemd neither splits, expands nor unquotes; as `fingerpost join` has it, and `#`.
_PLAIN: Final = re.compile(r"[\w./:@,=+?&#\[\]-]+", re.ASCII)


def command_line(options: Mapping[str, Any], name: str = "options") -> str:
    """The options of a command, in one line.

    Args:
        options: by name, with `_` in place of `-`; None leaves one out.
        name: the variable that has them, for errors.

    Raises:
        AnsibleFilterError: a value cannot stand in a unit.
    """
    words = []
    for key, value in options.items():
        option = f"--{key.replace('_', '-')}"
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            if _PLAIN.fullmatch(str(each)) is None:
                raise AnsibleFilterError(
                    f"{name}.{key}: {each!r} cannot stand in a unit: use letters, digits and "
                    "./:@,=+?&#-, without spaces"
                )
            words += [option, str(each)]
    return " ".join(words)


def addresses(hosts: Iterable[str], hostvars: Mapping[str, Any], own: str = "") -> list[str]:
    """The addresses of hosts: their variable `own`, else `ansible_host`, else their name."""
    found = []
    for host in hosts:
        known = hostvars[host]
        found.append(str((own and known.get(own)) or known.get("ansible_host") or host))
    return found


def proxy_urls(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """The URLs of proxies on hosts: TLS where `fingerpost_proxy_credentials` have a certificate."""
    found = []
    for host, address in zip(hosts := list(hosts), addresses(hosts, hostvars), strict=True):
        secure = (hostvars[host].get("fingerpost_proxy_credentials") or {}).get("tls-cert")
        name = f"[{address}]" if ":" in address else address
        found.append(f"{'https' if secure else 'http'}://{name}:12480")
    return found


def file_hash(path: str) -> str:
    """The SHA-1 of a file on this machine, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The filters, by name."""
        return {
            "addresses": addresses,
            "command_line": command_line,
            "file_hash": file_hash,
            "proxy_urls": proxy_urls,
        }
