"""What readers of foreign answers share: the JSON, its numbers, and how they say what is wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_AXES",
    "TOLERANCE",
    "NotReadError",
    "answered_json",
    "flat_items",
    "is_number",
    "kind_of",
    "number_of",
    "only_output",
]

MAX_AXES: Final = 16
# Rounding of float16 and of a sum of many; more is not a score or a probability.
TOLERANCE: Final = 1e-3
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_KINDS: Final = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
_NAMED: Final = 80


class NotReadError(Exception):
    """The answer is not in a form that is read; the message says why, and what is expected."""


def answered_json(body: bytes, peer: str) -> Any:
    """The JSON of an answer.

    Raises:
        BadAnswer: it is not JSON.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"{peer}: its answer is not JSON: {body[:200]!r}") from error


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_of(value: Any) -> Any:
    """A number that is written as text, as a number; everything else as it is."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value


def kind_of(value: Any) -> str:
    """What a value of JSON is, for messages."""
    return "null" if value is None else _KINDS.get(type(value), "a number")


def flat_items(value: list[Any], what: str) -> list[Any]:
    """The items of lists in lists.

    Raises:
        NotReadError: they are nested too deeply.
    """
    flat = value
    for _ in range(MAX_AXES):
        if not any(isinstance(each, list) for each in flat):
            return flat
        flat = [i for each in flat for i in (each if isinstance(each, list) else (each,))]
    raise NotReadError(f"{what} has too deeply nested lists, more than {MAX_AXES}")


def only_output(outputs: Mapping[str, Any], wanted: str) -> str:
    """The name of the output that is read.

    Args:
        outputs: by name.
        wanted: the metadata `output`; empty for the only one there is.

    Raises:
        NotReadError: it is not there, or there are several.
    """
    names = ", ".join(outputs)[:_NAMED]
    if wanted:
        if wanted not in outputs:
            raise NotReadError(f"it has no output {wanted!r}, but {names}")
        return wanted
    if len(outputs) != 1:
        raise NotReadError(f"it has the outputs {names}: name one in the metadata (output=...)")
    return next(iter(outputs))
