"""The priority of the threads that compute, which is lower than that of the event loop.

The event loop answers `GET /load` and writes results; it must not wait until a decoder or the model
has used up its share of a processor. Without special rights a thread can only lower its priority,
so the threads that compute do, by `NICE`. Threads that a framework starts from them (OpenMP's)
inherit it. docs/decisions/0009-batching.md has the measurements: a larger `NICE` makes a single
request faster still, but starves the model while the loop refuses a flood of requests.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

__all__ = ["NICE", "decode_pool", "lower_priority"]

NICE: Final = 5


def lower_priority() -> None:
    """Lower the priority of the calling thread below that of the main thread, by `NICE`.

    On Linux only, where each thread has a priority of its own; elsewhere without effect.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            nice = os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICE
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, nice))


def decode_pool(threads: int) -> ThreadPoolExecutor:
    """A pool for decoding images, which all engines of a process may share."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=lower_priority)
