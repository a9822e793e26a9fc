"""One image on its way through the attempts at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance, ModelReference

__all__ = ["Job"]


class Job:
    """One image on its way; the dispatcher notes here how far it has come.

    `deadline` is in the event loop's time; `peer` is the one that answered, or else the last one
    that was asked or failed, and `worker` whom it named as the source of its answer; `failed`
    counts the attempts that a worker began and did not finish; `headers` go with every attempt.
    """

    __slots__ = (
        "attempts",
        "deadline",
        "failed",
        "headers",
        "image_bytes",
        "last_error",
        "peer",
        "reference",
        "retried",
        "shrink",
        "sticky",
        "top",
        "worker",
    )

    def __init__(
        self,
        reference: ModelReference,
        *,
        top: int,
        deadline: float,
        shrink: bool = False,
        sticky: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.reference = reference
        self.top = top
        self.deadline = deadline
        self.shrink = shrink
        self.sticky = sticky
        self.headers = headers
        self.attempts = 0
        self.failed = 0
        self.image_bytes = 0
        self.retried: tuple[str, ...] = ()
        self.peer: Instance | None = None
        self.worker = ""
        self.last_error: FingerpostError | None = None
