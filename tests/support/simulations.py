"""Simulated clusters in processes of their own, begun before the tests that wait for them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Self, TypeVar

from benchmarks.routing.scenario import Result, Scenario
from benchmarks.routing.simulator import simulate

__all__ = ["Simulations", "simulates"]

F = TypeVar("F", bound=Callable[..., object])


def simulates(scenarios: Callable[..., Iterable[Scenario]]) -> Callable[[F], F]:
    """Decorate a test with what it simulates, as a function of its parameters.

    The test gets the results, in the same order, as `results`.
    """

    def decorate(test: F) -> F:
        test.simulates = scenarios  # type: ignore[attr-defined]
        return test

    return decorate


class Simulations:
    """Simulates each scenario once, as many at a time as there are cores, in the order begun.

    A simulation is seeded, so that its result does not depend on the process or the order. It has
    the lowest priority: other tests, beside which it runs, start workers and measure time.
    """

    def __init__(self) -> None:
        cores = min(4, os.cpu_count() or 1)
        # Not forked: the process of the tests may have threads.
        self._pool = ProcessPoolExecutor(
            cores, multiprocessing.get_context("spawn"), initializer=os.nice, initargs=(19,)
        )
        self._futures: dict[Scenario, Future[Result]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, scenario: Scenario) -> Future[Result]:
        """Begin it, unless it was begun before."""
        if scenario not in self._futures:
            self._futures[scenario] = self._pool.submit(simulate, scenario)
        return self._futures[scenario]
