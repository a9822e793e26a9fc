"""How many bytes may be on their way over a slow link, so that they arrive in time."""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["UploadLimit"]

_CORRECTION: Final = 0.1  # of an upload's error, by which the queue changes
# The rate is that of the last seconds in which the link was in use, and the last 200 images.
_MEMORY_S: Final = 2.0
_KEEP: Final = 1.0 - 1.0 / 200
_FIRST_MB: Final = 1.0
# Uploads may take so much of the time that is left: those that begin later slow them down.
_SHARE: Final = 0.5
# What has less time left than so many uploads like it take one after another is not begun.
_LEAST: Final = 2.0
_MARGIN: Final = 6.0  # so many uploads more, for lost packets, but at most `_MARGIN_S`
_MARGIN_S: Final = 0.25
# It is of no use any more where in so many seconds no image was cut off, or had to wait.
_USE_S: Final = 10.0
_PAUSE_S: Final = 0.002  # at least, before the oldest image that waits asks again
_LEAST_MB: Final = 1e-6


class UploadLimit:
    """Begins an upload only if a slow link has the time for it.

    It is made once the deadline of an image has passed during its upload, and is there until that
    has not happened for 10 s, and no image had to wait for it either. Without such a sign nothing
    is counted: a limit that always measured also held back images that had time, because a busy
    worker reads late (median 1.02 of C3's in a mixed cluster, instead of 0.93). The workers where
    it happened share one limit: they are behind this client's own link, or it is rare.

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
    The kernel cannot tell: it takes an image in before it sends it. The first samples are those of
    a link that images from before the limit share, so they are dropped with the first one after.

    With no request on its way one more is always allowed: no figure keeps a link shut. Before
    anything is known, 1 MB may be on its way. Servers that do not say what time they have spent
    have no limit. Does no I/O.

    Rejected: to count as on their way all requests without an answer, less the part of their time
    that they spend at the worker. Answers of a batch come at once, and the link was idle between.

    Attributes:
        unanswered: this client's requests there without an answer, of those that were counted.
        ends_at: when the last upload ends by this account, in monotonic seconds.
        needed_until: until then it is in use.
    """

    __slots__ = (
        *("_busy_s", "_ended_at", "_known", "_mb", "_s_per_mb", "_sent_mb"),
        *("_shared", "_shared_until", "ends_at"),
        *("needed_until", "unanswered"),
    )

    def __init__(self, now: float) -> None:
        self.unanswered = 0
        self.ends_at = -inf
        self.needed_until = now + _USE_S
        self._known = False
        self._mb = 0.0  # of the images that are not answered
        self._sent_mb = self._busy_s = 0.0  # of the last images, and of the link
        self._s_per_mb = 0.0
        self._ended_at = -inf
        self._shared = True
        self._shared_until = now

    def allows(self, mb: float, left_s: float, now: float) -> bool:
        """Whether one more upload may begin.

        Args:
            mb: megabytes of the image.
            left_s: seconds until its deadline, without those that the worker needs.
            now: monotonic seconds.
        """
        if not self.unanswered:
            return True
        if self._known:
            allowed = self._backlog_s(now) + mb * self._s_per_mb <= _SHARE * left_s
        else:
            allowed = self._mb + mb <= _FIRST_MB
        if not allowed:
            self.cut_off(now)
        return allowed

    def cut_off(self, now: float) -> None:
        """Note that an upload was cut off at its deadline, or would be: the limit stays in use."""
        self.needed_until = now + _USE_S

    def allowed_at(self, mb: float, left_s: float, now: float) -> float:
        """About when it will be allowed, in monotonic seconds; never `now` itself."""
        wait_s = self._backlog_s(now) + mb * self._s_per_mb - _SHARE * left_s
        return now + max(_PAUSE_S, wait_s / (1.0 - _SHARE))

    def hopeless(self, mb: float, left_s: float) -> bool:
        """Whether an upload that is not allowed now will not be later, either."""
        upload_s = mb * self._s_per_mb
        return _LEAST * upload_s + min(_MARGIN * upload_s, _MARGIN_S) > left_s

    def uncounted(self, now: float) -> None:
        """Note the end of a request that began before the limit: it may have shared the link."""
        self._shared_until = now
        self._shared = True

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
        self.ended(mb)
        self._known = True
        if worker_s is None:
            return
        if self._shared and began_at > self._shared_until:  # the first sample of the link alone
            self._shared = False
            self._sent_mb = self._busy_s = 0.0
        ended_at = max(began_at, now - worker_s)
        busy_s = ended_at - max(began_at, self._ended_at)
        if busy_s > 0.0:
            self._ended_at = ended_at
        else:
            busy_s = 0.0
        self._sample(mb, busy_s, ended_at - ends_at)

    def late(self, mb: float, began_at: float, ends_at: float, now: float) -> None:
        """Count a request that is cut off at its deadline, and learn from it: see `answered`."""
        self.cut_off(now)
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
        busy_s = min(busy_s, max(_MEMORY_S, 2.0 * mb * self._s_per_mb))  # or the worker stood still
        keep = _KEEP * _MEMORY_S / (_MEMORY_S + busy_s)
        self._sent_mb = self._sent_mb * keep + (mb or _LEAST_MB)
        self._busy_s = self._busy_s * keep + busy_s
        self._s_per_mb = self._busy_s / self._sent_mb
        self.ends_at += _CORRECTION * error_s
