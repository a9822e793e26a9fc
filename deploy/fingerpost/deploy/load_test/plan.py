"""What a load test shall do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fingerpost.deploy.load_test.arrivals import constant, poisson
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Plan"]

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A closed loop, in which each answer lets the next image go; with a `rate`, an open one.

    Attributes:
        model: `digits`, `digits@3` or `digits@canary`.
        seconds: of measuring. More of them show rarer events: 99.9 % of an image needs 1,000.
        warm_up_s: of the same load before that, not counted: connections open, batches form, the
            client learns the workers.
        deadline_s: of each image. An open loop leaves out images that it could not send in time.
        concurrency: of a closed loop, images in flight; None finds it as streams do.
        rate: of an open loop, images due a second.
        arrivals: `poisson`, or `constant` for equal steps.
        max_outstanding: of an open loop, most images in flight; further ones wait, and are late.
            More leaves the waiting to the cluster; each one costs a task and perhaps a connection.
        expected_interval_s: of a closed loop, the time between two images of one sender, to
            estimate what waiting for answers hid (see `Histogram.corrected`).

    Raises:
        ConfigurationError: a value that makes no sense, by the name of its option.
    """

    model: str
    seconds: float = 10.0
    warm_up_s: float = 2.0
    deadline_s: float = 30.0
    concurrency: int | None = None
    rate: float | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"
    max_outstanding: int = 256
    expected_interval_s: float | None = None

    def __post_init__(self) -> None:
        _check("--seconds", self.seconds, 0.1, _DAY_S)
        _check("--warm-up", self.warm_up_s, 0, _DAY_S)
        _check("--deadline", self.deadline_s, 0.001, _DAY_S)
        _check("--concurrency", self.concurrency, 1, 10_000)
        _check("--max-outstanding", self.max_outstanding, 1, 10_000)
        _check("--rate", self.rate, 0.001, 1e6)
        _check("--expected-interval", self.expected_interval_s, 0.001, _DAY_S)

    def due(self, rng: Random) -> Iterator[float]:
        """When the images of an open loop are due, in seconds from the start of the warm-up."""
        if self.rate is None:
            raise ValueError("a closed loop sends when answers come")
        seconds = self.warm_up_s + self.seconds
        if self.arrivals == "constant":
            return constant(self.rate, seconds)
        return poisson(self.rate, seconds, rng)


def _check(option: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigurationError(f"{option} {value:g}: use {least:g} to {most:,.0f}")
