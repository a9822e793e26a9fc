"""Messages of the Python API, as the command line says them: with its options for settings.

The client names the setting that would help at the end of a message: `give more time (timeout_s)`.
That is a field of `ClientConfig`, which nobody can write on a command line.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Final

from fingerpost.client.config import ClientConfig

__all__ = ["with_options"]

_OPTIONS: Final = {"timeout_s": "--deadline", "wait_for_ready_s": "--wait-for-ready"}
_NAMED: Final = re.compile(rf" \(({'|'.join(each.name for each in fields(ClientConfig))})\)")


def with_options(message: object) -> str:
    """The message with the option for a setting; without a name where there is no option."""
    return _NAMED.sub(_option, str(message))


def _option(found: re.Match[str]) -> str:
    option = _OPTIONS.get(found[1])
    return f" ({option})" if option else ""
