"""`make bench`: every claim of docs/benchmarks.md, and the page made anew from what was measured.

`python -m benchmarks NAME...` (`make bench-NAME`) measures some rows and leaves the page as it is.
`--smoke` runs short versions of those rows that need no peers, and judges by wide bounds, which a
row has to miss twice.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.document.records import read_records
from benchmarks.harness.environments import ROOT
from benchmarks.harness.network import Network
from benchmarks.harness.results import RESULTS, RESULTS_VARIABLE
from benchmarks.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rows import Row

_ROW_S = 1800.0
_END_S = 60.0


def main() -> int:
    """Run them; 1 if a goal was missed or a benchmark could not run."""
    listed = "\n".join(f"  {row.name:10} {row.title}" for row in ROWS)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawTextHelpFormatter
    )
    names = [row.name for row in ROWS]
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = [row for row in ROWS if row.name in given.names]
    if given.smoke:
        return _smoke(rows or ROWS)
    if rows:
        return _measure(rows)
    status = _measure([row for row in ROWS if row.in_all])
    everything = [row.name for row in ROWS if row.in_all]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.document", "--take", *everything], cwd=ROOT, check=True
    )
    return status


def _measure(rows: Sequence[Row]) -> int:
    missed = []
    began = time.monotonic()
    for row in rows:
        for name in row.results:  # what an earlier run left must not pass for this one's
            (RESULTS / f"{name}.json").unlink(missing_ok=True)
        if not _run(row, row.options):
            missed.append(row.name)
    print(f"{len(rows)} rows in {time.monotonic() - began:.0f} s")
    if missed:
        print(f"not all as claimed: {', '.join(missed)}")
    return 1 if missed else 0


def _smoke(rows: Sequence[Row]) -> int:
    """Short runs, whose records nobody keeps; 1 if a ratio is far off its goal twice.

    A short run of one row in a hundred is far off by the machine's noise alone, so what is far off
    is measured once more.
    """
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[RESULTS_VARIABLE] = folder
        for row in rows:
            if row.smoke is None:
                continue
            if row.root and (reason := _no_network()):
                print(f"== {row.name}: left out: {reason}", flush=True)
                continue
            far_off = _far_off(row, Path(folder))
            if far_off:
                print("\n".join([*far_off, "measured once more:"]), flush=True)
                far_off = _far_off(row, Path(folder))
            wrong += far_off
    print("\n".join(wrong) or "no ratio is far off its goal")
    return 1 if wrong else 0


def _far_off(row: Row, folder: Path) -> list[str]:
    """What is far off in a short run of a row."""
    for name in row.results:
        (folder / f"{name}.json").unlink(missing_ok=True)
    _run(row, row.smoke or ())
    records = read_records(folder)
    missing = [name for name in row.results if name not in records]
    return [f"{row.name}: it could not run" for _ in missing] + [
        f"{row.name}: {goal.claim}: {goal.ratio:.3g}, far from {goal.bound:g}"
        for name in row.results
        if name in records
        for goal in records[name].goals
        if goal.far_off(row.slack)
    ]


def _run(row: Row, options: Sequence[str]) -> bool:
    """Whether it ran, and kept its goals."""
    print(f"== {row.name}: {row.title}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", row.module, *options], cwd=ROOT)
    try:
        status = process.wait(_ROW_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        process.send_signal(signal.SIGINT)  # so that it ends what it started
        status = process.wait(_END_S)
        if isinstance(error, KeyboardInterrupt):
            raise
    print(f"-- {row.name}: {time.monotonic() - began:.0f} s", flush=True)
    return status == 0


def _no_network() -> str:
    """Why there can be no network of hosts here; empty where there can."""
    try:
        with Network({"probe": 10.0}):
            return ""
    except RuntimeError as error:
        return str(error)


if __name__ == "__main__":
    raise SystemExit(main())
