"""Server processes: started, waited for, and ended with all their children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["free_port", "running", "wait_for"]

_START_S = 120.0


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[object],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: str = "server",
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is ended as a whole.

    Its output goes to a file `log`, which is shown where it ends too early. SIGTERM interrupts this
    process from now on, as Ctrl-C does, so that nothing is left behind.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = [str(word) for word in command]
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{log}.log"
    with file.open("ab") as sink:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        if process.poll() is not None:
            print(file.read_text(errors="replace")[-3000:])
        raise
    finally:
        _end(process)


def wait_for(url: str, process: subprocess.Popen[bytes], *, timeout_s: float = _START_S) -> None:
    """Wait until `url` answers 200.

    Raises:
        RuntimeError: the process ended, or the time is over.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                return
        except OSError:  # an HTTPError too
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within {timeout_s:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for what is left of the group."""
    group = process.pid
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    process.wait(10)
