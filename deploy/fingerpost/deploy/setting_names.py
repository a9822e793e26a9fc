"""Messages of the Python API, as the command line says them: with its options for settings.

The client names the setting that would help at the end of a message: `give more time (timeout_s)`.
That is a field of `ClientConfig`, which nobody can write on a command line. A worker begins with
such a name: `drain.lease_s is -1.0: it must be 0 or more`.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Final

from fingerpost.client.config import ClientConfig

__all__ = ["with_options"]

_OPTIONS: Final = {"timeout_s": "--deadline", "wait_for_ready_s": "--wait-for-ready"}
_NAMED: Final = re.compile(rf" \(({'|'.join(each.name for each in fields(ClientConfig))})\)")
# The worker's settings that begin a message about their value.
_WORKER: Final = {
    "drain.lease_s": "--lease",
    "models.poll_s": "--poll",
    "registration.weight": "--weight",
    "uds": "--uds",
    "zmq.key": "--zmq-key",
    "zmq.port": "--zmq-port",
}
_BEGINS: Final = re.compile(rf"^({'|'.join(map(re.escape, _WORKER))})(?= (?:is|'))")


def with_options(message: object) -> str:
    """The message with the option for a setting; without a name where there is no option."""
    text = _BEGINS.sub(lambda found: _WORKER[found[1]], str(message))
    return _NAMED.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    option = _OPTIONS.get(found[1])
    return f" ({option})" if option else ""
