"""Fixtures for all rooms: a real Consul agent, and the check that no task is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.consul_cluster import ConsulCluster, free_ports

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

    Args:
        binary: `consul`.
        log: the file its log goes to.
        datacenter: its datacenter's name.
        joining: an agent of another datacenter, already started, to join over the WAN.
    """

    def __init__(
        self,
        binary: str,
        log: Path,
        *,
        datacenter: str = "dc1",
        joining: ConsulProcess | None = None,
    ) -> None:
        self._binary = binary
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._datacenter = datacenter
        self._joining = joining
        ports = free_ports(5)
        self.http_port, self.dns_port, self._serf_port, self._server_port, self._wan_port = ports
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
                    f"-serf-wan-port={self._wan_port}",
                    f"-dns-port={self.dns_port}",
                    "-grpc-port=-1",
                    f"-datacenter={self._datacenter}",
                    f"-node=node-{self._datacenter}",
                    *(
                        [f"-retry-join-wan=127.0.0.1:{self._joining._wan_port}"]
                        if self._joining
                        else []
                    ),
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


@pytest.fixture(scope="session")
def consul_cluster(
    consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """Three servers and a client agent that the session shares: leave all of them running."""
    with ConsulCluster(consul_binary, tmp_path_factory.mktemp("consul-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secured_cluster(
    consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """The same with ACLs, TLS and encrypted gossip; for the services `digits` and `cats`."""
    folder = tmp_path_factory.mktemp("secured-cluster")
    services = ("digits", "cats")
    with ConsulCluster(consul_binary, folder, secured=True, services=services) as cluster:
        yield cluster


@pytest.fixture
def consul_cluster_process(consul_binary: str, tmp_path: Path) -> Iterator[ConsulCluster]:
    """A plain cluster of the test's own, not yet started, for tests that kill and freeze."""
    cluster = ConsulCluster(consul_binary, tmp_path)
    yield cluster
    cluster.stop()
