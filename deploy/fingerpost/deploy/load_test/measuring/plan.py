"""The settings of a load test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fingerpost.deploy.load_test.measuring.arrivals import constant, poisson
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Plan"]

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a load test: a closed loop, or an open loop if it has a `rate`.

    In a closed loop each answer lets the next image go. In an open loop images are due at times of
    their own, whether answers come or not.

    Attributes:
        model: `digits`, `digits@3` or `digits@canary`.
        seconds: duration of the measurement. More shows rarer events: a 99.9th percentile needs
            1,000 images or more.
        warm_up_s: seconds of the same load before the measurement, in which connections open,
            batches form and the client learns the workers.
        deadline_s: seconds that an image may take. An open loop does not send images whose deadline
            has passed.
        concurrency: images in flight in a closed loop; None adapts it as streams do.
        rate: images a second that are due in an open loop; None for a closed loop.
        arrivals: intervals of an open loop: `poisson`, or `constant`.
        max_outstanding: most images in flight in an open loop; further ones wait and are sent late.
            More moves the waiting into the cluster; each costs a task and perhaps a connection.
        expected_interval_s: in a closed loop, the interval in seconds at which a sender would send,
            to estimate what waiting for answers hides (see `Histogram.corrected`).

    Raises:
        ConfigurationError: a value is out of range; the message has the name of its option.
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
        """The times of an open loop's images, in seconds from the start of the warm-up."""
        if self.rate is None:
            raise ValueError("a closed loop sends when answers come")
        seconds = self.warm_up_s + self.seconds
        if self.arrivals == "constant":
            return constant(self.rate, seconds)
        return poisson(self.rate, seconds, rng)


def _check(option: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigurationError(f"{option} {value:g}: use {least:g} to {most:,.0f}")
