r"""File names that are not UTF-8, as text for JSON and terminals, and back.

Linux allows any bytes in a file name. Python reads them as text in which each byte that is not
UTF-8 is a lone surrogate (PEP 383), which no JSON document may contain. Here such a name has two
fields: `key`, in which these bytes are written as `\xe9`, for people; and `key_base64`, the exact
bytes in base64 (RFC 4648), for programs. `base64 -d` gives the name back. A name that is UTF-8 has
`key` alone.

Rejected: lone surrogates as JSON escapes, which jq and most parsers reject or replace; percent
encoding of every key, which changes names that are fine.
"""

from __future__ import annotations

import base64
import binascii
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["name_from_json", "name_to_json", "printable_name", "stdin_names"]


def printable_name(name: str) -> str:
    r"""The name as text that can be encoded; a byte that is not UTF-8 becomes `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def name_to_json(name: str, field: str) -> dict[str, str]:
    """The fields of a JSON object for a file name: `field`, and `field_base64` where needed."""
    try:
        name.encode()
    except UnicodeEncodeError:
        exact = base64.b64encode(os.fsencode(name)).decode()
        return {field: printable_name(name), f"{field}_base64": exact}
    return {field: name}


def name_from_json(text: str, exact: str | None) -> str:
    """The file name of the fields that `name_to_json` wrote.

    Raises:
        ValueError: `exact` is not valid base64.
    """
    if exact is None:
        return text
    try:
        return os.fsdecode(base64.b64decode(exact, validate=True))
    except binascii.Error as error:
        raise ValueError(f"{exact!r} is not valid base64: {error}") from error


def stdin_names() -> Iterator[str]:
    """The file name on each line of standard input, as it arrives; empty lines are skipped."""
    for line in iter(sys.stdin.buffer.readline, b""):
        if line.strip():
            yield os.fsdecode(line.rstrip(b"\r\n"))
