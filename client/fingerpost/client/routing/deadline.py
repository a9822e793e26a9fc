"""How long an attempt may take: in all, and in each phase."""

from __future__ import annotations

import enum
from math import inf

__all__ = ["Phase", "PhaseClock"]


class Phase(enum.Enum):
    """The phase that an attempt is in."""

    CONNECT = enum.auto()
    UPLOAD = enum.auto()
    COMPUTE = enum.auto()


class PhaseClock:
    """Determines when an attempt times out: in each phase, and at the request's deadline.

    ::

        CONNECT --connected--> UPLOAD --sent--> COMPUTE --answered--> over

    CONNECT lasts `connect_timeout_s` at most, COMPUTE `response_timeout_s`, and UPLOAD
    `upload_stall_timeout_s` without a byte sent.

    An upload that makes progress is limited by the deadline alone: 20 MB take long on a slow link,
    and to end them would only start them again elsewhere (envoyproxy/envoy-mobile#2575). The
    deadline is a time of this machine's monotonic clock; requests carry the milliseconds left.

    A worker that computes for long is not silent: some time before `response_timeout_s` is over,
    `ask_now` says that it should be asked how it is, and `progressed` begins a new period.
    """

    __slots__ = (
        "_asked_since",
        "_since",
        "connect_timeout_s",
        "deadline",
        "phase",
        "response_timeout_s",
        "upload_stall_timeout_s",
    )

    def __init__(
        self,
        now: float,
        *,
        deadline: float = inf,
        connect_timeout_s: float,
        upload_stall_timeout_s: float,
        response_timeout_s: float,
    ) -> None:
        self.deadline = deadline
        self.connect_timeout_s = connect_timeout_s
        self.upload_stall_timeout_s = upload_stall_timeout_s
        self.response_timeout_s = response_timeout_s
        self.phase = Phase.CONNECT
        self._since = now
        self._asked_since = -inf

    def connected(self, now: float) -> None:
        """Record that a connection is open, a new one or a kept one."""
        self.phase, self._since = Phase.UPLOAD, now

    def progressed(self, now: float) -> None:
        """Record that bytes were sent or received, or that the worker says that it is at work."""
        self._since = now

    def sent(self, now: float) -> None:
        """Record that the whole body was sent."""
        self.phase, self._since = Phase.COMPUTE, now

    def expires_at(self) -> float:
        """When this attempt times out, in monotonic seconds, if nothing happens before."""
        match self.phase:
            case Phase.CONNECT:
                allowed_s = self.connect_timeout_s
            case Phase.UPLOAD:
                allowed_s = self.upload_stall_timeout_s
            case Phase.COMPUTE:
                allowed_s = self.response_timeout_s
        return min(self.deadline, self._since + allowed_s)

    def ask_now(self, now: float, ahead_s: float) -> bool:
        """Whether to ask the worker now if it is at work; True once in each silent period.

        Args:
            now: monotonic seconds.
            ahead_s: how long before the end of the period, in which the answer should come.
        """
        if self.phase is not Phase.COMPUTE or self._asked_since == self._since:
            return False
        if now < self._since + self.response_timeout_s - ahead_s:
            return False
        self._asked_since = self._since
        return True

    def left_ms(self, now: float) -> int:
        """Whole milliseconds until the deadline, at least 1: what the request carries."""
        return max(1, int(min(self.deadline - now, 86400.0) * 1000))
