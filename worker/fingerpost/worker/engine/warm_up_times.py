"""How long a model takes for the batches of its warm-up, so that a worker knows itself at once.

Clients route by what a worker says of its times. One that knew them only after its first images
got a share of the images as if it took no time: of four workers of 10 to 160 ms, the slowest got
ten of the first hundred, and the mean of the first thousand was 1.5 times that of one central
queue. The first run of a size does not count: frameworks plan memory and choose kernels in it,
which takes from as long as the run itself to minutes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Learn", "measure"]

Learn: TypeAlias = "Callable[[int, float], None]"
"""Takes the size of a batch, and the seconds that it took."""

# Limits what measuring adds to the start of a worker. Slower ones are known by fewer runs.
_LONGEST_S: Final = 2.0
# So many runs are known to a `LatencyModel`.
_RUNS: Final = 3


def measure(
    run: Callable[[int], object],
    sizes: Sequence[int],
    first_s: Sequence[float],
    learn: Learn,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run batches of all sizes once more, and the smallest twice, of which the shorter run counts.

    A larger batch whose images one by one would take longer than 2 s does not run again: its first
    run counts, but no longer than that.

    Args:
        run: runs a batch of so many images.
        sizes: ascending; each has run once.
        first_s: how long that took.
        learn: is told a time of each size, the smallest size three times in all.
        clock: returns seconds.
    """

    def seconds(size: int) -> float:
        began = clock()
        run(size)
        return clock() - began

    smallest = sizes[0]
    alone_s = seconds(smallest)
    if alone_s <= _LONGEST_S:
        alone_s = min(alone_s, seconds(smallest))
    for _ in range(max(1, _RUNS + 1 - len(sizes))):
        learn(smallest, alone_s)
    for size, before_s in zip(sizes[1:], first_s[1:], strict=True):
        one_by_one_s = alone_s * size / smallest
        short = one_by_one_s <= _LONGEST_S
        learn(size, seconds(size) if short else min(before_s, one_by_one_s))
