"""Real `fingerpost` processes for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.ports import free_port
from tests.support.waiting import until_blocking

__all__ = ["COLD", "FINGERPOST", "Process", "Processes", "get_json", "marked_processes"]

# The command that a user calls, by this Python. Commands that begin exactly so are started from a
# process that has imported them already, see `warm.py`; `COLD` is as a user starts it.
FINGERPOST = (sys.executable, "-m", "fingerpost.deploy.cli")
COLD = (sys.executable, "-m", "fingerpost")


def get_json(url: str) -> Any:
    """The JSON at `url`, None where nobody answers or the answer is an error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None


class Process:
    """One running `fingerpost` subcommand, or other program; its output goes to a file."""

    def __init__(
        self, arguments: tuple[str, ...], log: Path, program: tuple[str, ...] = FINGERPOST
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        with log.open("wb") as sink:
            self._popen = subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )
        self.pid = self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        return self._popen.wait(timeout_s)

    def output(self) -> str:
        return self.log.read_text()

    def end(self) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.kill()
            self._popen.wait()


class Processes:
    """Starts processes and remembers them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.end()

    def start(self, *arguments: object, program: tuple[str, ...] = FINGERPOST) -> Process:
        log = self._folder / f"{len(self._all)}-{Path(str(arguments[0])).name}.log"
        process = Process(tuple(str(each) for each in arguments), log, program)
        self._all.append(process)
        return process

    def registry(self) -> str:
        port = free_port()
        self.start("registry", "--port", port)
        url = f"http://127.0.0.1:{port}"
        until_blocking(lambda: get_json(f"{url}/v1/status/leader"))
        return url

    def proxy(self, registry: str, *options: object) -> str:
        port = free_port()
        self.start("proxy", "--port", port, "--registry", registry, *options)
        url = f"http://127.0.0.1:{port}"
        until_blocking(lambda: get_json(f"{url}/health/ready"))
        return url

    def worker(self, registry: str, model: Path, *options: object) -> Process:
        return self.start(
            "worker", "--registry", registry, "--model", model, "--threads", 1, *options
        )

    def two_workers(self, model: Path) -> str:
        """A registry, a proxy and two workers of a model; the proxy's URL, once it knows both."""
        registry = self.registry()
        proxy = self.proxy(registry)
        for _ in range(2):
            self.worker(registry, model)
        self.workers(proxy, 2, model.name)
        return proxy

    def workers_now(self, proxy: str, service: str = "digits") -> list[dict[str, Any]]:
        """The workers that the proxy tells of at this moment."""
        answer = get_json(f"{proxy}/v1/resolve/{service}")
        return list(answer["instances"]) if answer else []

    def workers(self, proxy: str, count: int, service: str = "digits") -> list[dict[str, Any]]:
        """Wait until the proxy tells of so many workers; return what it tells."""

        def told() -> list[dict[str, Any]] | None:
            found = self.workers_now(proxy, service)
            return found if len(found) == count else None

        # Three workers that import TensorFlow at once take half a minute where two cores are busy.
        return list(until_blocking(told, within_s=60.0))


def marked_processes(value: str) -> list[str]:
    """Command lines of running processes that inherited our mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FINGERPOST_TEST_RUN") == value:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
