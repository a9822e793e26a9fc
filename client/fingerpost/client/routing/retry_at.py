"""What a balancer answers where no worker can be picked now."""

from __future__ import annotations

__all__ = ["RetryAt"]


class RetryAt:
    """Returned by `Balancer.pick` where no worker can be picked before `until` (monotonic seconds).

    Either all workers were tried, and `until` is the present time, or all are overloaded, or the
    links to all of them are.

    Attributes:
        until: when to call again, at the latest. Infinite if the image would not arrive before its
            deadline: see `UploadLimit`.
        overloaded: all are overloaded: requests wait in a line, the oldest first.
        full: with `overloaded`: some worker has as many requests of this client as it accepts, so
            that each of their answers may make a place, before `until`.
    """

    __slots__ = ("full", "overloaded", "until")

    def __init__(self, until: float, *, overloaded: bool = False, full: bool = False) -> None:
        self.until = until
        self.overloaded = overloaded
        self.full = full
