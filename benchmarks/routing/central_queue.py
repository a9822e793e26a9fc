"""One central queue before all workers: what routing without one is compared with (M/G/k).

The arrivals and the work are those of `simulate` for the same scenario. There is no network. The
fastest free worker takes the next images: as many as its batches should have, where the times of
batches are known exactly. No router knows so much: here no image waits at a worker while another
one is free. But an image may go to a slow free worker where a short wait for a fast one were
better, so that the mean of a good router can be below.
"""

from __future__ import annotations

import random
from collections import deque
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from fingerpost.worker.engine.batching.batch_sizes import useful_size

if TYPE_CHECKING:
    from benchmarks.routing.scenario import Scenario

__all__ = ["central_queue"]


def central_queue(scenario: Scenario) -> list[float]:
    """The latencies, in seconds, of the images that arrive after the warm-up.

    The scenario has `batch_s`, an open loop with one `load`, and neither events nor antagonists.
    """
    assert scenario.batch_s is not None
    fixed, each = scenario.batch_s
    places = [speed for speed in scenario.speeds for _ in range(scenario.concurrent_batches)]
    free = [(-speed, index) for index, speed in enumerate(places)]
    heapify(free)
    running: list[tuple[float, int, list[float]]] = []
    waiting: deque[tuple[float, float]] = deque()
    arrivals = deque(_arrivals(scenario))
    latencies: list[float] = []
    while arrivals or running:
        if arrivals and arrivals[0][0] < (running[0][0] if running else inf):
            now = arrivals[0][0]
            waiting.append(arrivals.popleft())
        else:
            now, index, born = heappop(running)
            heappush(free, (-places[index], index))
            latencies += [now - each for each in born if each >= scenario.warmup_s]
        while waiting and free:
            speed, index = heappop(free)
            most = min(len(waiting), scenario.slots)
            batch = [waiting.popleft() for _ in range(useful_size(most, fixed / (fixed + each)))]
            took_s = scenario.batch_time_s([work for _, work in batch]) / -speed
            heappush(running, (now + took_s, index, [at for at, _ in batch]))
    return latencies


def _arrivals(scenario: Scenario) -> list[tuple[float, float]]:
    """When each image arrives and its work, by the draws that `simulate` makes."""
    assert isinstance(scenario.load, float)
    rng, now, found = random.Random(scenario.seed), 0.0, []
    while now < scenario.duration_s:
        after = now + rng.expovariate(scenario.load * scenario.capacity)
        rng.random()  # the client
        found.append((now, scenario.draw(rng)[1]))
        now = after
    return found
