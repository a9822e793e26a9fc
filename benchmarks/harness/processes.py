"""What a server and its children take: processor time and memory."""

from __future__ import annotations

import psutil

__all__ = ["cpu_s", "resident_bytes"]


def cpu_s(*pids: int) -> float:
    """Seconds of processor time that these processes and their present children have taken."""
    times = [each.cpu_times() for each in _families(pids)]
    return sum(each.user + each.system for each in times)


def resident_bytes(*pids: int) -> int:
    """Memory that they hold, shared pages counted once for each."""
    return sum(each.memory_info().rss for each in _families(pids))


def _families(pids: tuple[int, ...]) -> list[psutil.Process]:
    return [
        each
        for parent in map(psutil.Process, pids)
        for each in (parent, *parent.children(recursive=True))
    ]
