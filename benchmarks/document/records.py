"""What a benchmark wrote down. The page's records are kept in git, in docs/benchmarks/."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.harness.environments import ROOT
from benchmarks.harness.results import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["KEPT", "Machine", "Record", "Verdict", "read_records", "take"]

KEPT = ROOT / "docs" / "benchmarks"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A goal and what came of it; see `harness.results.Goal`."""

    claim: str
    ratio: float
    bound: float
    at_most: bool
    kept: bool

    def far_off(self, slack: float) -> bool:
        """Whether it misses its bound by more than this factor."""
        if self.at_most:
            return self.ratio > self.bound * slack
        return self.ratio < self.bound / slack


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    cpus: int
    system: str
    python: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark's; see `harness.results.report`."""

    name: str
    title: str
    date: str
    machine: Machine
    versions: dict[str, str]
    settings: dict[str, Any]
    figures: dict[str, dict[str, float]]
    goals: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()


def read_records(folder: Path = KEPT) -> dict[str, Record]:
    """All records of a folder, by name. Raises `msgspec.MsgspecError` where one is none."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: msgspec.json.decode(file.read_bytes(), type=Record) for file in files}


def take(names: Iterable[str]) -> None:
    """Keep these results for the page, as far as there are any."""
    KEPT.mkdir(exist_ok=True)
    for name in names:
        if (file := RESULTS / f"{name}.json").exists():
            shutil.copy(file, KEPT)
