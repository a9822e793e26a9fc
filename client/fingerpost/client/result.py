"""The result of one image, and a client's counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from fingerpost.basics.renames import renamed_attributes
from fingerpost.client.wire import Prediction, TimingsMs
from fingerpost.errors import FingerpostError

if TYPE_CHECKING:
    # Not needed to make or encode one, and few use it.
    from fingerpost.client.tasks.results import TaskResult  # noqa: TC004
    from fingerpost.registry.address_policy import RejectionReason

__all__ = ["Result", "Stats"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one image: its `predictions`, or the `error` if it failed.

    `Client.classify` raises the error instead.

    Attributes:
        index: the image's position in the stream, from 0.
        key: the key that was given with the image, or its path; for an image that had neither, the
            index as text.
        predictions: the labels and their scores (0 to 1), best first; empty if the image failed.
        error: why there are no predictions; None if there are.
        model, version: what classified the image.
        worker, address: id and `host:port` of the worker that answered; if none did, of the last
            one that was asked. Through a relay, of the worker that the proxy named, and empty if
            it named none.
        relay: `host:port` of the proxy that relayed the image; empty if none did.
        attempts: how many workers were asked, including the one that answered.
        elapsed_s: seconds from the call to the result, including reading and waiting.
        retried: the error codes of the failed attempts, in their order.
        image_bytes: the size of what was sent; 0 if nothing was.
        timings_ms: the times that the worker measured; None if it sent none.
        answer: what `Client.infer` returns; None of `classify` and `stream`.
    """

    index: int
    key: str
    predictions: tuple[Prediction, ...] = ()
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
    answer: TaskResult | None = None

    @property
    def label(self) -> str:
        """The best label. Raises `error` if the image failed."""
        return self._best()[0]

    @property
    def score(self) -> float:
        """The score of the best label, 0 to 1. Raises `error` if the image failed."""
        return self._best()[1]

    def _best(self) -> Prediction:
        if self.error is not None:
            raise self.error
        return self.predictions[0]


@renamed_attributes(silences="unresponsive")
@dataclass(slots=True, kw_only=True)
class Stats:
    """Counters of what a client has done since it was made; they only grow.

    Attributes:
        attempts: requests that were sent to workers, including those that could not connect.
        retries: attempts that failed and were followed by another one, by error code
            (`unreachable`, `overloaded`, `draining`, `bad_answer`, ...).
        lookups: requests to proxies or registries; they are not made per image.
        bytes_sent: image bytes that were sent straight to workers.
        bytes_relayed: image bytes that were sent through proxies (`ClientConfig.relay`).
        bytes_spared: image bytes that shrinking has saved of both.
        stale_addresses: attempts at workers of the snapshot that refused the connection.
        stale_entries: attempts at workers that are not what their entry in the registry says:
            another process has the address, or the model is not served there.
        hedges: second attempts that were made because an answer was late.
        ejections: how often a worker was ejected after failures.
        probes, probes_lost: requests for load reports, and those without an answer in time.
        unresponsive: how often the images that waited at a worker were sent elsewhere because it
            did not answer such a request; `silences` in release 0.1.
        suspect_images: images on which a worker fell silent: it had all of one, and then closed the
            connection or did not answer. A second one is tried, and no third.
        snapshot_age_s: the sum, over all images, of the age of the snapshot that was used.
        images: how many images `snapshot_age_s` is the sum of.
        rejected_entries: entries of proxies or the registry that were left out, by reason: they
            are malformed, or at an address that no worker can have or that is not allowed.
    """

    attempts: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    lookups: int = 0
    bytes_sent: int = 0
    bytes_relayed: int = 0
    bytes_spared: int = 0
    stale_addresses: int = 0
    stale_entries: int = 0
    hedges: int = 0
    ejections: int = 0
    probes: int = 0
    probes_lost: int = 0
    unresponsive: int = 0
    suspect_images: int = 0
    snapshot_age_s: float = 0.0
    images: int = 0
    rejected_entries: Mapping[RejectionReason, int] = field(default_factory=dict)
