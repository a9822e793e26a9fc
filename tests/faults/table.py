"""The table of what was broken and what came of it, for the terminal and for docs/faults.md."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.faults.load import Load
from tests.support.page_sections import others

__all__ = ["Row", "Table"]

_OS_RELEASE = Path("/etc/os-release")


@dataclass
class Figure:
    """One measured value and the bound that it must keep."""

    name: str
    value: float
    at_most: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        return self.value <= self.at_most

    @property
    def text(self) -> str:
        return f"{self.name} {_number(self.value)}{self.unit}"

    @property
    def bounded(self) -> str:
        return f"{self.text} ({_number(self.at_most)})"


@dataclass
class Row:
    """One fault: what was done, and the figures that were measured.

    A row whose test ended before `check` has failed.
    """

    number: str
    fault: str
    done: str = ""
    requests: int = 0
    failed: int = 0
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: bool = False
    may_fail: int = 0

    def load(self, load: Load, *, failures: int = 0) -> None:
        """Take the load's counts; more than so many failed requests fail the row."""
        self.requests += len(load.calls)
        self.failed += len(load.failed)
        self.may_fail = failures
        self.notes += [f"{count} x {error}" for error, count in load.errors.items()]

    def bounded(self, *loads: Load) -> None:
        """Of loads by which workers were hurt: the slowest image, and what the retries cost."""
        deadline_s = loads[0].timeout_s
        self.at_most("p99.9", max(each.p999_s for each in loads), deadline_s, " s")
        used = max(each.budget_used for each in loads)
        self.at_most("retry budget used", 100 * used, 100.0, " %")
        counts: Counter[str] = Counter()
        for each in loads:
            counts.update(each.retries)
            made = sum(call.attempts - 1 for call in each.calls if not call.error)
            assert each.failed or sum(each.retries.values()) == made, (each.retries, made)
        self.note(
            f"Retries: {', '.join(f'{n} x {cause}' for cause, n in counts.items()) or 'none'}"
        )

    def count(self, requests: int, errors: list[str]) -> None:
        """The same for requests of another kind."""
        self.requests += requests
        self.failed += len(errors)
        self.notes += sorted(set(errors))[:5]

    def at_most(self, name: str, value: float, bound: float, unit: str = "") -> None:
        self.figures.append(Figure(name, value, bound, unit))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def missed(self) -> list[str]:
        missed = [
            f"{each.text} (target: {_number(each.at_most)})"
            for each in self.figures
            if not each.kept
        ]
        if self.failed > self.may_fail:
            missed.append(f"{self.failed} of {self.requests} requests failed")
        return missed

    def check(self) -> None:
        """Fail the test if a target was missed."""
        self.checked = True
        assert not self.missed, f"{'; '.join(self.missed)}. Notes: {self.notes}"

    @property
    def verdict(self) -> str:
        if not self.checked:
            return "not measured"
        return "missed" if self.missed else "met"


class Table:
    """All rows of a session."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.consul = ""

    def row(self, number: str, fault: str) -> Row:
        row = Row(number, fault)
        self.rows.append(row)
        return row

    def encode(self) -> str:
        """All of it, for `add` in another process."""
        return msgspec.json.encode((self.consul, self.rows)).decode()

    def add(self, encoded: str) -> None:
        """Add the rows of another process."""
        consul, rows = msgspec.json.decode(encoded, type=tuple[str, list[Row]])
        self.consul = self.consul or consul
        self.rows += rows

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = []
        for row in self._sorted():
            lines.append(f"{row.number:>3}  {row.fault}: {row.verdict}")
            lines.append(f"     {row.done}")
            lines.append(f"     {row.requests} requests, {row.failed} failed")
            lines += [f"     {each.bounded}" for each in row.figures]
            lines += [f"     - {note}" for note in row.notes]
        return lines

    def markdown(self) -> str:
        """For docs/faults.md."""
        head = [
            "# What happens when something breaks",
            "",
            "Each row is a test that breaks one thing while clients send images without pause:",
            "real workers, proxies and Consul agents on one machine are killed, stopped and",
            "restarted. The table has the measured values and, in parentheses, the most that is",
            "allowed. `make test-faults` runs all tests; with `FAULTS_REPORT=docs/faults.md`",
            "before it in the same line, it writes this page.",
            "[Kubernetes](faults-kubernetes.md) has a page of its own.",
            "",
            f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} on {_machine()}, "
            f"Consul {self.consul or 'unknown'}.",
            "",
            "| | fault | requests | failed | measured (at most) | targets |",
            "|---|---|---|---|---|---|",
        ]
        for row in self._sorted():
            cells = [
                row.number,
                row.fault,
                f"{row.requests:,}",
                f"{row.failed} ({row.may_fail})",
                "<br>".join(each.bounded for each in row.figures),
                row.verdict,
            ]
            head.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        head += ["", "## What was done", ""]
        for row in self._sorted():
            notes = "".join(f" {_sentence(note)}" for note in row.notes)
            head.append(f"- {row.number}: **{row.fault}.** {_sentence(row.done)}{notes}")
        return "\n".join(head) + "\n"

    def write(self, path: Path) -> None:
        """Write the page; sections that other commands have written there stay."""
        path.write_text(self.markdown() + others(path, ("What was done",)))

    def _sorted(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: (int(row.number.rstrip("abc")), row.number))


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _number(value: float) -> str:
    if value == int(value):
        return f"{int(value)}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _machine() -> str:
    name = platform.system()
    if _OS_RELEASE.exists():
        fields = dict(
            line.split("=", 1) for line in _OS_RELEASE.read_text().splitlines() if "=" in line
        )
        name = fields.get("PRETTY_NAME", name).strip('"')
    return f"{os.cpu_count()} cores, {name}, Python {platform.python_version()}"
