"""The inputs of one item, as they are given on the command line: `NAME=FILE` or `NAME=NUMBERS`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_inputs"]

_MAX_JSON_BYTES: Final = 64_000_000


def read_inputs(given: Sequence[str]) -> dict[str, Any]:
    """The inputs by their names: the path of an image, a number, or numbers in lists.

    Args:
        given: `NAME=FILE`, where a file `.json` has numbers, and each other one is an image; or
            `NAME=` and numbers as JSON.

    Raises:
        ConfigurationError: one is not of these forms, a name is there twice, or there is no such
            file.
    """
    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not (name and equals and text):
            raise ConfigurationError(f"--input {each!r} is not NAME=FILE or NAME=NUMBERS")
        if name in found:
            raise ConfigurationError(f"--input {name}: it is given twice")
        found[name] = _value(name, text)
    return found


def _value(name: str, text: str) -> Any:
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a text that cannot be the name of a file
        is_file = False
    if is_file and path.suffix.lower() != ".json":
        return path
    data: bytes | str = text
    if is_file:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ConfigurationError(
                f"--input {name}: {text} has more than {_MAX_JSON_BYTES:,} bytes of JSON"
            )
        data = path.read_bytes()
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        raise ConfigurationError(
            f"--input {name}: {text[:200]} is neither a file nor numbers: give an image, a number, "
            "or numbers in lists such as [0.2, 0.8], also in a file .json"
        )
    return value
