"""Fingerpost's own worker as `fingerpost worker` runs it, with an embedded registry."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["worker"]


@contextmanager
def worker(*options: object) -> Iterator[str]:
    """A worker with these options of `fingerpost worker`; yields its URL once it is ready."""
    program = [sys.executable, "-m", "fingerpost.deploy.cli"]
    registry, port = free_port(), free_port()
    with running([*program, "registry", "--port", registry]) as process:
        wait_for(f"http://127.0.0.1:{registry}/v1/status/leader", process)
        command = [
            *program, "worker", "--port", port,
            "--registry", f"http://127.0.0.1:{registry}", *options,
        ]  # fmt: skip
        with running(command) as process:
            wait_for(f"http://127.0.0.1:{port}/health/ready", process)
            yield f"http://127.0.0.1:{port}"
