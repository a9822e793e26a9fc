"""A real Consul agent, alone on loopback, that keeps everything in memory."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness.environments import ROOT
from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ConsulAgent", "consul"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulAgent:
    """A running agent."""

    url: str
    pid: int
    version: str


@contextmanager
def consul() -> Iterator[ConsulAgent]:
    """A development agent, as `deploy/consul/get-consul` finds or fetches it.

    Raises:
        CalledProcessError: there is none, and none can be had.
    """
    binary = _output(ROOT / "deploy" / "consul" / "get-consul")
    version = _output(binary, "version").split()[1].removeprefix("v")
    http, *others = (free_port() for _ in range(5))
    names = ("serf-lan-port", "serf-wan-port", "server-port", "dns-port")
    command = [
        binary, "agent", "-dev", "-bind=127.0.0.1", "-log-level=warn", f"-http-port={http}",
        "-grpc-port=-1", *(f"-{name}={port}" for name, port in zip(names, others, strict=True)),
    ]  # fmt: skip
    with running(command, log="consul") as process:
        url = f"http://127.0.0.1:{http}"
        wait_for(f"{url}/v1/health/service/consul", process)
        yield ConsulAgent(url=url, pid=process.pid, version=version)


def _output(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(
        words, check=True, stdout=subprocess.PIPE, text=True, timeout=300
    ).stdout.strip()
