"""Where a process spends its processor time: samples of `perf`, by the library that ran."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["shares"]

# Samples a second of processor time: not a divisor of any timer of the kernel's.
_FREQUENCY = 499


def shares(pid: int, seconds: float) -> dict[str, float]:
    """Each library's share of what all threads of a process run meanwhile; the kernel is one.

    Code that a library made while it ran is `[JIT]`. Empty where there is no `perf`, or where this
    user may not read samples of the process.
    """
    if shutil.which("perf") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "perf.data"
        what = ["-e", "cpu-clock", "-F", str(_FREQUENCY), "-p", str(pid)]
        command = ["perf", "record", "-q", *what, "-o", str(record), "--", "sleep", str(seconds)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return {}
        shown = ["--stdio", "--sort", "dso", "--fields", "overhead,dso", "--field-separator", ";"]
        report = subprocess.run(
            ["perf", "report", "-i", str(record), *shown],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found: dict[str, float] = {}
    for line in report.splitlines():
        share, separator, library = line.partition(";")
        if separator and not line.startswith("#"):
            name = library.strip()
            name = "[JIT]" if name.startswith(("[JIT]", "//anon", "[unknown]")) else name
            found[name] = found.get(name, 0.0) + float(share.strip().rstrip("%")) / 100
    return found
