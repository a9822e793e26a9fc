"""`python -m benchmarks.document`: docs/benchmarks.md and its plots from docs/benchmarks/*.json.

`--take NAME...` first takes in what these rows, run since, left in benchmarks/results/.
"""

from __future__ import annotations

import argparse

from benchmarks.document.page import page
from benchmarks.document.records import KEPT, read_records, take
from benchmarks.harness.environments import ROOT
from benchmarks.rows import ROWS

PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    """Read, draw, write."""
    from benchmarks.document.plots import draw  # matplotlib: a second

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", nargs="*", default=[], choices=[row.name for row in ROWS])
    given = parser.parse_args()
    take(name for row in ROWS if row.name in given.take for name in row.results)
    records = read_records()
    KEPT.mkdir(exist_ok=True)
    draw(records, KEPT)
    PAGE.write_text(page(ROWS, records))
    print(f"wrote {PAGE.relative_to(ROOT)} from {len(records)} records")


if __name__ == "__main__":
    main()
