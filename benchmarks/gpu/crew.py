"""Several processes that begin at once, for load and for limits that one does not reach."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["begin_together", "together"]

_START_S = 300.0


def together(module: str, crew: Sequence[Sequence[object]]) -> list[dict[str, Any]]:
    """Run `python -m MODULE ARGUMENTS` for each of the crew at once; what each of them found.

    Raises:
        RuntimeError: one of them failed.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for arguments in crew
    ]
    try:
        for process in processes:
            if not process.stdout or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{process.args!r} could not begin")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=_START_S)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def begin_together() -> None:
    """In a member of the crew, once it is ready: wait for the others."""
    print("ready", flush=True)
    sys.stdin.readline()
