"""Results: rounds in turn, medians, a table, a verdict on each goal, and JSON.

Records go to `benchmarks/results/`, which git ignores, or to the folder that BENCHMARK_RESULTS
names: a short run that somebody else judges leaves nothing there.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.environments import ROOT

__all__ = ["RESULTS", "RESULTS_VARIABLE", "Goal", "in_turn", "report"]

RESULTS = ROOT / "benchmarks" / "results"
RESULTS_VARIABLE = "BENCHMARK_RESULTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A claim: a ratio that must be at least (or at most) a bound."""

    claim: str
    ratio: float
    bound: float
    at_most: bool = False

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound


def in_turn(
    contestants: Mapping[str, Callable[[], dict[str, float]]], *, rounds: int
) -> dict[str, dict[str, float]]:
    """Run all contestants in turn, several times; the median of each figure.

    Each returns its figures by name. Interleaving lets a noisy machine disturb all alike.
    """
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            figures = run()
            shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            print(f"  round {number + 1} of {rounds}: {name}: {shown}", flush=True)
            seen[name].append(figures)
    return {
        name: {key: median(each[key] for each in runs) for key in runs[0]}
        for name, runs in seen.items()
    }


def report(
    name: str,
    title: str,
    figures: Mapping[str, Mapping[str, float]],
    goals: list[Goal],
    *,
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> bool:
    """Print the table and the verdicts, write `NAME.json`, and tell whether all goals are kept.

    Args:
        figures: rows by name, each with its figures by column; a row may lack some.
        notes: whole sentences that the figures must not be read without.
    """
    console = Console(width=160)  # a pipe has no width of its own
    columns = list(dict.fromkeys(key for row in figures.values() for key in row))
    table = Table("", *columns, title=title)
    for row, values in figures.items():
        table.add_row(row, *(f"{values[key]:,.4g}" if key in values else "" for key in columns))
    console.print(table)
    for goal in goals:
        sign = "<=" if goal.at_most else ">="
        verdict = "[green]kept[/]" if goal.kept else "[red]missed[/]"
        console.print(f"{goal.claim}: {goal.ratio:.3g} ({sign} {goal.bound:g}) {verdict}")
    for note in notes:
        console.print(note, markup=False, highlight=False)
    folder = Path(os.environ.get(RESULTS_VARIABLE, RESULTS))
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "name": name,
        "title": title,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
            "python": platform.python_version(),
        },
        "versions": dict(versions),
        "settings": dict(settings),
        "figures": figures,
        "goals": [{**asdict(goal), "kept": goal.kept} for goal in goals],
        "notes": list(notes),
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    return all(goal.kept for goal in goals)
