"""What came of one image, and what a client has done so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from fingerpost.client.wire import TimingsMs
from fingerpost.registry import FingerpostError

__all__ = ["Result", "Stats"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one image: `predictions`, or in a stream perhaps `error`.

    Attributes:
        index: its position in the stream, from 0.
        key: the path as it was given; the index in decimal for an image that had none.
        predictions: label and score (0 to 1), best first; empty where there is an error.
        error: why there is no answer; None where there is one.
        model, version: what classified it.
        worker, address: id and `host:port` of the worker that answered.
        attempts: how many workers were asked, the one that answered included.
        elapsed_s: seconds from the call to the answer, reading and waiting included.
        timings_ms: what the worker says it spent.
    """

    index: int
    key: str
    predictions: tuple[tuple[str, float], ...] = ()
    error: FingerpostError | None = None
    model: str = ""
    version: str = ""
    worker: str = ""
    address: str = ""
    attempts: int = 0
    elapsed_s: float = 0.0
    timings_ms: TimingsMs | None = None

    @property
    def label(self) -> str:
        """The best label. Raises `error` where there is one."""
        return self._best()[0]

    @property
    def score(self) -> float:
        """The best label's score, 0 to 1. Raises `error` where there is one."""
        return self._best()[1]

    def _best(self) -> tuple[str, float]:
        if self.error is not None:
            raise self.error
        return self.predictions[0]


@dataclass(slots=True, kw_only=True)
class Stats:
    """What a client has done since it was made; the numbers only grow.

    Attributes:
        attempts: requests sent to workers, or tried to.
        retries: attempts that failed and were followed by another, by the code of their error
            (`unreachable`, `overloaded`, `draining`, `bad_answer`, ...).
        lookups: polls of proxies or registries; not one of them is made for an image.
        bytes_sent: image bytes that went straight to workers, counted when an answer or a failure
            came after the connection was there.
    """

    attempts: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    lookups: int = 0
    bytes_sent: int = 0
