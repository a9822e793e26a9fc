"""How long a request may take: in all, and in each phase."""

from __future__ import annotations

import enum
from math import inf

__all__ = ["Phase", "PhaseClock"]


class Phase(enum.Enum):
    """Where an attempt is."""

    CONNECT = enum.auto()
    UPLOAD = enum.auto()
    COMPUTE = enum.auto()


class PhaseClock:
    """Says when an attempt has failed, phase by phase, within the request's deadline.

    ::

        CONNECT --connected--> UPLOAD --sent--> COMPUTE --answered--> over
        connect_s at most      progress_s       compute_s at most
                               without a byte

    An upload has no limit but progress and the deadline: 20 MB over a slow link take their time,
    and ending them would only start them again elsewhere (envoyproxy/envoy-mobile#2575). The
    deadline is a time of this machine's monotonic clock, and travels as milliseconds left.
    """

    __slots__ = ("_since", "compute_s", "connect_s", "deadline", "phase", "progress_s")

    def __init__(
        self,
        now: float,
        *,
        deadline: float = inf,
        connect_s: float,
        progress_s: float,
        compute_s: float,
    ) -> None:
        self.deadline = deadline
        self.connect_s = connect_s
        self.progress_s = progress_s
        self.compute_s = compute_s
        self.phase = Phase.CONNECT
        self._since = now

    def connected(self, now: float) -> None:
        """The connection is there, new or kept."""
        self.phase, self._since = Phase.UPLOAD, now

    def progressed(self, now: float) -> None:
        """Bytes of the body left."""
        self._since = now

    def sent(self, now: float) -> None:
        """The whole body left."""
        self.phase, self._since = Phase.COMPUTE, now

    def expires_at(self) -> float:
        """When this attempt has failed, if nothing happens before."""
        match self.phase:
            case Phase.CONNECT:
                allowed_s = self.connect_s
            case Phase.UPLOAD:
                allowed_s = self.progress_s
            case Phase.COMPUTE:
                allowed_s = self.compute_s
        return min(self.deadline, self._since + allowed_s)

    def left_ms(self, now: float) -> int:
        """What goes into the request: whole milliseconds until the deadline, 1 at least."""
        return max(1, int(min(self.deadline - now, 86400.0) * 1000))
