"""Fixtures for all rooms: a real Consul agent, and the check that no task is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

_GET_CONSUL = Path(__file__).parent.parent / "deploy" / "consul" / "get-consul"


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fails a test that leaves an asyncio task running: every task has an owner that ends it."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left running: {sorted(task.get_name() for task in left)}"


class ConsulProcess:
    """A Consul development agent on loopback, on ports of its own, that can be stopped and started.

    It keeps everything in memory, so that a restart forgets all entries.
    """

    def __init__(self, binary: str, log: Path) -> None:
        self._binary = binary
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port, self._serf_port, self._server_port = _free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    "agent",
                    "-dev",
                    "-bind=127.0.0.1",
                    "-client=127.0.0.1",
                    "-log-level=warn",
                    f"-http-port={self.http_port}",
                    f"-serf-lan-port={self._serf_port}",
                    f"-server-port={self._server_port}",
                    "-serf-wan-port=-1",
                    "-dns-port=-1",
                    "-grpc-port=-1",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.fail(f"Consul did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _is_ready(self) -> bool:
        """Whether it has a leader and its own node is in the catalog with a passing check."""
        with contextlib.suppress(OSError, ValueError):
            path = f"{self.url}/v1/health/service/consul?passing"
            with urllib.request.urlopen(path, timeout=2) as answer:  # noqa: S310 (loopback)
                return bool(json.load(answer))
        return False


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """Path of a `consul` binary. Where none can be had the test fails; it is never skipped."""
    run = subprocess.run([_GET_CONSUL], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout.strip()


@pytest.fixture(scope="session")
def consul_url(consul_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Consul agent that the whole session shares: use service names of your own."""
    process = ConsulProcess(consul_binary, tmp_path_factory.mktemp("consul") / "log")
    process.start()
    yield process.url
    process.stop()


@pytest.fixture
def consul_process(consul_binary: str, tmp_path: Path) -> Iterator[ConsulProcess]:
    """A Consul agent of the test's own, not yet started, for tests that stop and restart it."""
    process = ConsulProcess(consul_binary, tmp_path / "consul.log")
    yield process
    process.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
