"""The audit log: one JSON line for each order and each refusal.

::

    {"time":"2026-11-27T14:02:31.123Z","who":"operators","tenant":"default","role":"operate",
     "from":"10.0.0.7","action":"rollback","target":"flowers","result":"done","detail":""}

`result` is `done`, `failed` (the order was allowed and could not be carried out) or `refused`.
Refusals are limited, see `RefusalLimit`: those of known callers by name, those of images by
address, and all others by address; each apart, so that requests without a credential, or a flood of
wrong leases, cannot hide what a known caller tried. A line with `action` `left_out` says how many
were not written. Orders are never left out: what a full disk loses is counted and logged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from fingerpost.basics.line_log import LineLog
from fingerpost.basics.printable import one_line
from fingerpost.basics.remote_network import remote_network
from fingerpost.security.audit.refusal_limit import RefusalLimit
from fingerpost.security.caller import ANYBODY

if TYPE_CHECKING:
    from fingerpost.basics.line_log import Counts
    from fingerpost.security.caller import Caller

__all__ = ["IMAGE", "AuditEntry", "AuditLog", "Result"]

IMAGE: Final = "image"
"""The action of an image that is refused, for want of a lease."""

Result = Literal["done", "failed", "refused"]

_MAX_LETTERS: Final = 300
# What is limited apart, and how its line `left_out` ends.
_OTHERS: Final = ""
_OF_KNOWN: Final = " of known callers"
_OF_IMAGES: Final = " of images"
MAX_FILE_BYTES: Final = 100_000_000


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """One line.

    Attributes:
        time: UTC, ISO 8601.
        who: the caller's name in the policy; empty where it is not known.
        tenant, role: of that caller.
        source: the address that asked.
        action: what was asked for, such as `rollback` or `resolve`.
        target: of what, such as a model's name.
        result: see the module.
        detail: why it was refused, or failed.
    """

    time: str
    who: str
    tenant: str
    role: str
    source: str
    action: str
    target: str
    result: Result
    detail: str


class AuditLog:
    """Writes orders and refusals to a file of its owner alone (0600), rotated at 100 MB.

    Args:
        target: the file; `-` is standard output.
        dropped: counts the lines that could not be written.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, target: str, *, dropped: Counts, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._lines = LineLog(
            target, name="audit log", dropped=dropped, mode=0o600, max_bytes=max_bytes
        )
        self._limits = {kind: RefusalLimit() for kind in (_OTHERS, _OF_KNOWN, _OF_IMAGES)}

    def write(
        self,
        action: str,
        target: str,
        result: Result,
        *,
        caller: Caller = ANYBODY,
        source: str = "",
        detail: str = "",
    ) -> None:
        """Queue a line; never waits. A refusal may be counted instead."""
        now = time.monotonic()
        self.tick(now)
        if result == "refused":
            kind = _OF_IMAGES if action == IMAGE else _OTHERS
            limit = self._limits[_OF_KNOWN if caller.identity else kind]
            if not limit.admit(caller.identity or remote_network(source), now):
                return
        self._lines.write(
            AuditEntry(
                time=_utc(),
                who=one_line(caller.identity, _MAX_LETTERS),
                tenant=caller.tenant if caller.identity else "",
                role=caller.role,
                source=one_line(source, _MAX_LETTERS),
                action=one_line(action, _MAX_LETTERS),
                target=one_line(target, _MAX_LETTERS),
                result=result,
                detail=one_line(detail, _MAX_LETTERS),
            )
        )

    def tick(self, now: float) -> None:
        """Write how many refusals were left out, once their window is over; call it now and then.

        Args:
            now: seconds of the monotonic clock.
        """
        for kind, limit in self._limits.items():
            self._left_out(limit.take_left_out(now), kind)

    def close(self) -> None:
        """Write what is waiting, for at most 4 s, and close the file."""
        for kind, limit in self._limits.items():
            self._left_out(limit.take_rest(), kind)
        self._lines.close()

    def _left_out(self, count: int, of: str) -> None:
        if count:
            self._lines.write(
                AuditEntry(
                    time=_utc(),
                    who="",
                    tenant="",
                    role="",
                    source="",
                    action="left_out",
                    target="",
                    result="refused",
                    detail=f"{count} more refusals{of}",
                )
            )


def _utc() -> str:
    now = time.time()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{seconds}.{int(now * 1000) % 1000:03d}Z"
