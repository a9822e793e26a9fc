"""How many bytes may be on their way to one worker, so that they arrive before the deadline."""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["UploadLimit"]

_CORRECTION: Final = 0.1  # of an upload's error, by which the queue changes
_MEMORY_S: Final = 2.0  # of the link in use
_FIRST_MB: Final = 1.0
# Uploads may take so much of the time that is left: those that begin later slow them down.
_SHARE: Final = 0.5
# What has less time left than so many uploads like it take one after another is not begun.
_LEAST: Final = 8.0
_PAUSE_S: Final = 0.002  # at least, before the oldest image that waits asks again
_LEAST_MB: Final = 1e-6


class UploadLimit:
    """Begins an upload only if the link has the time for it.

    Uploads share a link, so one more slows down all that are under way. Where more images come than
    the link can carry, each takes longer, until all are cut off at their deadlines and no byte was
    of use: at twice the rate of a link of 20 Mbit/s, 6 % of what it can carry arrived in time, and
    at four times the rate 1 %. So the bytes on their way get at most half of the time that the next
    image has left, less what the worker needs. Further images wait in the client, the oldest first.
    One whose time is too short for its upload, with a margin for lost packets, fails before it.

    The link is a queue that is served at one rate. The rate is measured from answers: an upload
    lasts from the pick until `worker_s` before the answer, and of uploads at the same time only the
    part counts in which the one before had ended. An image that is cut off at its deadline is a
    sample, too: the link has carried less than what was on its way. The queue is what was sent less
    what the link has carried since, corrected by each answer that is sooner or later than expected.
    The kernel cannot tell: it takes an image in before it sends it.

    With no request at the worker one more is always allowed: no figure keeps a link shut. Before
    anything is known, 1 MB may be on its way. Servers that do not say what time they have spent
    have no limit. Does no I/O.

    Rejected: to count as on their way all requests without an answer, less the part of their time
    that they spend at the worker. Answers of a batch come at once, and the link was idle between.

    Attributes:
        unanswered: this client's requests there without an answer.
        ends_at: when the last upload ends by this account, in monotonic seconds.
    """

    __slots__ = (
        *("_busy_s", "_ended_at", "_known", "_mb", "_s_per_mb", "_sent_mb", "ends_at"),
        "unanswered",
    )

    def __init__(self) -> None:
        self.unanswered = 0
        self.ends_at = -inf
        self._known = False
        self._mb = 0.0  # of the images that are not answered
        self._sent_mb = self._busy_s = 0.0  # of the last seconds that the link was in use
        self._s_per_mb = 0.0
        self._ended_at = -inf

    def allows(self, mb: float, left_s: float, now: float) -> bool:
        """Whether one more upload may begin.

        Args:
            mb: megabytes of the image.
            left_s: seconds until its deadline, without those that the worker needs.
            now: monotonic seconds.
        """
        if not self.unanswered:
            return True
        if not self._known:
            return self._mb + mb <= _FIRST_MB
        return self._backlog_s(now) + mb * self._s_per_mb <= _SHARE * left_s

    def allowed_at(self, mb: float, left_s: float, now: float) -> float:
        """About when it will be allowed, in monotonic seconds; never `now` itself."""
        wait_s = self._backlog_s(now) + mb * self._s_per_mb - _SHARE * left_s
        return now + max(_PAUSE_S, wait_s / (1.0 - _SHARE))

    def hopeless(self, mb: float, left_s: float) -> bool:
        """Whether an upload that is not allowed now will not be later, either."""
        return _LEAST * mb * self._s_per_mb > left_s

    def dispatched(self, mb: float, now: float) -> None:
        """Count an upload that begins."""
        if self.unanswered:
            self.ends_at = now + self._backlog_s(now) + mb * self._s_per_mb
            self._mb += mb
        else:
            self.ends_at = now + mb * self._s_per_mb
            self._mb = mb
        self.unanswered += 1

    def ended(self, mb: float) -> None:
        """Count a request that ends without an answer, and not at its deadline."""
        self.unanswered -= 1
        self._mb -= mb

    def answered(
        self, mb: float, began_at: float, ends_at: float, now: float, worker_s: float | None
    ) -> None:
        """Count a request that is answered, and learn from it.

        Args:
            mb: megabytes of the image.
            began_at: when its upload began, in monotonic seconds.
            ends_at: when it was expected to end: `ends_at` as it was then.
            now: when its answer came.
            worker_s: the part of the time that the worker spent; None if it does not say.
        """
        self.unanswered -= 1
        self._mb -= mb
        self._known = True
        if worker_s is None:
            return
        ended_at = max(began_at, now - worker_s)
        busy_s = ended_at - max(began_at, self._ended_at)
        if busy_s > 0.0:
            self._ended_at = ended_at
        else:
            busy_s = 0.0
        self._sample(mb, busy_s, ended_at - ends_at)

    def late(self, mb: float, began_at: float, ends_at: float, now: float) -> None:
        """Count a request that is cut off at its deadline, and learn from it: see `answered`."""
        self._known = True
        share_s = (now - began_at) * mb / max(self._mb, _LEAST_MB)
        if share_s > mb * self._s_per_mb:
            self._sample(mb, share_s, max(0.0, now - ends_at))
        self.ended(mb)

    def _backlog_s(self, now: float) -> float:
        """Seconds that the link needs for what is on its way."""
        left_s, all_s = self.ends_at - now, self._mb * self._s_per_mb
        least_s = left_s if left_s < all_s else all_s
        return least_s if least_s > 0.0 else 0.0

    def _sample(self, mb: float, busy_s: float, error_s: float) -> None:
        keep = _MEMORY_S / (_MEMORY_S + busy_s)
        self._sent_mb = self._sent_mb * keep + (mb or _LEAST_MB)
        self._busy_s = self._busy_s * keep + busy_s
        self._s_per_mb = self._busy_s / self._sent_mb
        self.ends_at += _CORRECTION * error_s
