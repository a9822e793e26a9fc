"""The metrics of several processes as those of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MergedMetrics", "merge"]

# What is not added up, but is the same in all, or has its highest value told.
_HIGHEST: Final = re.compile(
    r"fingerpost_build_info|fingerpost_worker_(state|versions|reregistrations)"
    r"|fingerpost_tls_certificate_.*|process_(start_time_seconds|max_fds)"
)
_COUNTS: Final = re.compile(r"# TYPE (\S+) (?:counter|histogram)$")
_SAMPLE: Final = re.compile(r"(\S+?)(\{.*\})? (\S+)$")


class MergedMetrics:
    """The metrics of processes that come and go: counters never go backwards.

    What a process that ended had counted, as it was read last, stays in the sums.
    """

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._ended = ""

    def note(self, process: str, text: str) -> None:
        """Note what a process has answered."""
        self._last[process] = text

    def end(self, process: str) -> None:
        """Keep the counters alone of a process that has ended."""
        last = self._last.pop(process, "")
        self._ended = merge([self._ended, _counters_of(last)])

    def text(self) -> str:
        """The metrics of all, in Prometheus's text form."""
        return merge([*self._last.values(), self._ended])


def merge(texts: Iterable[str]) -> str:
    """The metrics of several processes as one text: values are added up, but see `_HIGHEST`.

    Args:
        texts: each in Prometheus's text form, as `prometheus_client` writes it.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                lines = heads.setdefault(family, [])
                if line not in lines:
                    lines.append(line)
            elif (found := _SAMPLE.match(line)) is not None:
                values = samples.setdefault(family, {})
                key, value = found[1] + (found[2] or ""), float(found[3])
                if key not in values:
                    values[key] = value
                elif _HIGHEST.fullmatch(found[1]):
                    values[key] = max(values[key], value)
                else:
                    values[key] += value
    lines = []
    for family, head in heads.items():
        lines += head
        lines += [f"{key} {value!r}" for key, value in samples.get(family, {}).items()]
    return "\n".join(lines) + "\n"


def _counters_of(text: str) -> str:
    """The counters and histograms of a text, without the processor time of the process."""
    kept, keeps = [], False
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            keeps = _COUNTS.match(line) is not None
        if keeps or line.startswith("# HELP "):
            kept.append(line)
    return "\n".join(kept)
