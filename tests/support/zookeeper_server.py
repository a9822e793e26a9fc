"""A real ZooKeeper server for tests, on a free port, that can be stopped, paused and emptied."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port

_GET_ZOOKEEPER = Path(__file__).parents[2] / "deploy" / "zookeeper" / "get-zookeeper"


class ZooKeeperProcess:
    """One standalone server on loopback.

    Its tick is 0.2 s, so that sessions of 1 s are granted (at least 2 ticks) and expire promptly;
    a server as it comes configured has ticks of 2 s.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._log = folder / "zookeeper.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"zookeeper://127.0.0.1:{self.port}/fingerpost"

    def start(self) -> None:
        """Start it and wait until it answers; does nothing while it runs."""
        if self._process is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "zoo.cfg"
        config.write_text(
            f"dataDir={self._folder / 'data'}\n"
            f"clientPort={self.port}\n"
            "clientPortAddress=127.0.0.1\n"
            "tickTime=200\n"
            "maxSessionTimeout=60000\n"
            "maxClientCnxns=0\n"
            "admin.enableServer=false\n"
            "4lw.commands.whitelist=srvr\n"
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Small and quick to start, because it runs for seconds beside other tests.
                env=os.environ
                | {"JVMFLAGS": "-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"},
            )
        until = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.fail(f"ZooKeeper did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it; its data stays."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Remove the data of a server that is stopped."""
        assert self._process is None
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _is_ready(self) -> bool:
        """Whether it serves; `ruok` is answered before that, and connections are still cut then."""
        answer = b""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection,
        ):
            connection.sendall(b"srvr")
            while piece := connection.recv(4096):
                answer += piece
        return b"Mode: standalone" in answer


@pytest.fixture(scope="session")
def zookeeper_program() -> str:
    """Path of a program that runs a server. Where none can be had the test fails; never skipped."""
    run = subprocess.run([_GET_ZOOKEEPER], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout.strip()


@pytest.fixture(scope="session")
def zookeeper_url(
    zookeeper_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a server that the whole session shares: use service names of your own."""
    process = ZooKeeperProcess(zookeeper_program, tmp_path_factory.mktemp("zookeeper"))
    process.start()
    yield process.url
    process.stop()


@pytest.fixture
def zookeeper_process(zookeeper_program: str, tmp_path: Path) -> Iterator[ZooKeeperProcess]:
    """A server of the test's own, not yet started."""
    process = ZooKeeperProcess(zookeeper_program, tmp_path / "zookeeper")
    yield process
    process.stop()
