"""A Consul development agent for tests, on ports of its own, that can be stopped and started."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.ports import free_ports

__all__ = ["ConsulProcess"]


class ConsulProcess:
    """A Consul development agent on loopback, on ports of its own, that can be stopped and started.

    It keeps everything in memory, so that a restart forgets all entries.

    Args:
        binary: `consul`.
        log: the file its log goes to.
        datacenter: its datacenter's name.
        joining: an agent of another datacenter, already started, to join over the WAN.
        config: a file with more of its configuration.
    """

    def __init__(
        self,
        binary: str,
        log: Path,
        *,
        datacenter: str = "dc1",
        joining: ConsulProcess | None = None,
        config: Path | None = None,
    ) -> None:
        self._config = config
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
                    *([f"-config-file={self._config}"] if self._config else []),
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
