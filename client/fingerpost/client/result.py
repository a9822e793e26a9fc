"""What came of one image, and what a client has done so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from fingerpost.client.wire import TimingsMs
from fingerpost.errors import FingerpostError

__all__ = ["Result", "Stats"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one image: `predictions`, or in a stream perhaps `error`.

    Attributes:
        index: its position in the stream, from 0.
        key: the key as it was given with the image, or its path; the index in decimal for an
            image that had neither.
        predictions: label and score (0 to 1), best first; empty where there is an error.
        error: why there is no answer; None where there is one.
        model, version: what classified it.
        worker, address: id and `host:port` of the worker that answered; without an answer, of the
            last one that was asked. Through a relay, of the worker that the proxy named, and empty
            where it named none.
        relay: `host:port` of the proxy in between; empty where there was none.
        attempts: how many workers were asked, the one that answered included.
        elapsed_s: seconds from the call to the answer, reading and waiting included.
        retried: why earlier attempts failed, by the code of their error, in their order.
        image_bytes: the size of what was sent, 0 where nothing was.
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
    relay: str = ""
    attempts: int = 0
    elapsed_s: float = 0.0
    retried: tuple[str, ...] = ()
    image_bytes: int = 0
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
        bytes_sent: image bytes that went straight to workers.
        bytes_relayed: image bytes that went through proxies instead (`ClientConfig.relay`).
        bytes_spared: what shrinking saved of both.
        stale_addresses: attempts at workers that are listed, but refused the connection.
        hedges: second attempts made because an answer was late.
        ejections: how often a worker was left out after failures.
        probes, probes_lost: load reports asked for, and those that did not come in time.
        silences: how often a worker was given up because it left such a question unanswered.
        snapshot_age_s: the sum, over all images, of the age of the list of workers that was used.
        images: the images that it is the sum of.
    """

    attempts: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    lookups: int = 0
    bytes_sent: int = 0
    bytes_relayed: int = 0
    bytes_spared: int = 0
    stale_addresses: int = 0
    hedges: int = 0
    ejections: int = 0
    probes: int = 0
    probes_lost: int = 0
    silences: int = 0
    snapshot_age_s: float = 0.0
    images: int = 0
