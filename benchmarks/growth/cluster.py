"""A real Consul agent, a proxy, and a fleet that is only registered; processes beside them."""

from __future__ import annotations

import json
import resource
import select
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.growth.fleet import SERVICE, instance, register
from benchmarks.harness.consul import ConsulAgent, consul
from benchmarks.harness.environments import ROOT
from benchmarks.harness.processes import cpu_s, resident_bytes
from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fingerpost.registry import Instance

__all__ = ["Cluster", "allow_sockets", "helper", "next_line", "row_name", "tell"]

_ANSWER_S: Final = 300.0
_POLLS: Final = "fingerpost_proxy_watch_polls_total"


class Cluster:
    """A Consul agent, a proxy before it, and a fleet of so many at most.

    Args:
        most: how many ports the fleet has.
        options: more of the proxy's.
        grpc: whether the workers have a gRPC port, too, at which nobody answers.
    """

    def __init__(self, most: int, options: Sequence[str] = (), *, grpc: bool = False) -> None:
        self._most = most
        self._options = options
        self._grpc = grpc
        self._workers = self._changes = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _start(self, stack: ExitStack) -> None:
        self._agent: ConsulAgent = stack.enter_context(consul())
        self.consul_version = self._agent.version
        port = free_port()
        self.proxy = f"http://127.0.0.1:{port}"
        address = self._agent.url.removeprefix("http://")
        process = stack.enter_context(
            running(
                [sys.executable, "-m", "fingerpost.deploy.cli", "proxy", "--port", port,
                 "--registry", f"consul://{address}", "--service", SERVICE,
                 *self._options]
            )
        )  # fmt: skip
        self._pid = process.pid
        wait_for(f"{self.proxy}/health/ready", process)
        fleet = stack.enter_context(helper("growth.fleet", self._most))
        self._ports = json.loads(next_line(fleet))

    def grow(self, workers: int) -> float:
        """Register so many in all, and wait until the proxy lists them; kilobytes of its answer."""
        for number in range(self._workers, workers):
            register(self._agent.url, self._entry(number, self._ports[number]))
        self._workers = workers
        url = f"{self.proxy}/v1/resolve/{SERVICE}"
        until = time.monotonic() + _ANSWER_S
        while len(json.loads(body := _get(url))["instances"]) < workers:
            if time.monotonic() > until:
                raise RuntimeError(f"the proxy does not list {workers} workers")
            time.sleep(0.1)
        return len(body) / 1000

    def change(self) -> None:
        """A worker comes at a port that none had before, so that all who wait are told."""
        self._changes += 1
        port = self._ports[(self._workers + self._changes) % len(self._ports)]
        register(self._agent.url, self._entry(0, port))

    def _entry(self, number: int, port: int) -> Instance:
        return instance(number, port, grpc=self._grpc)

    def proxy_cpu_s(self) -> float:
        """Seconds of processor time that the proxy has taken."""
        return cpu_s(self._pid)

    def load(self, seconds: float) -> dict[str, float]:
        """What the proxy and Consul have to do in that time, and what the proxy holds."""
        pids = {"proxy CPU %": self._pid, "Consul CPU %": self._agent.pid}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        polls = self._count(_POLLS)
        time.sleep(seconds)
        found = {name: (cpu_s(pid) - before[name]) / seconds * 100 for name, pid in pids.items()}
        return {
            **found,
            "Consul requests/s": (self._count(_POLLS) - polls) / seconds,
            "proxy MB": resident_bytes(self._pid) / 1e6,
        }

    def peak_mb(self) -> float:
        """The most memory that the proxy has ever held."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def watches(self) -> int:
        """The proxy's connections to Consul, which each hold a question open."""
        port = int(self._agent.url.rpartition(":")[2])
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.raddr.port == port
            for each in psutil.Process(self._pid).net_connections("tcp")
            if each.raddr
        )

    def lookups(self) -> float:
        """Answers of the proxy so far."""
        return self._count("fingerpost_proxy_lookups_total")

    def _count(self, metric: str) -> float:
        families = text_string_to_metric_families(_get(f"{self.proxy}/metrics").decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == metric)


def row_name(workers: int, clients: int = 0) -> str:
    """The name of a row: so many workers, and so many clients."""

    def count(number: int, noun: str) -> str:
        return f"{number:,} {noun}{'' if number == 1 else 's'}"

    return ", ".join([count(workers, "worker"), *([count(clients, "client")] * bool(clients))])


def tell(name: str, row: dict[str, float]) -> None:
    """Print a row that was measured."""
    print(f"  {name}: {', '.join(f'{key} {value:.4g}' for key, value in row.items())}", flush=True)


@contextmanager
def helper(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A module of the benchmarks as a process, by its name such as `growth.fleet`."""
    words = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _ANSWER_S)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise RuntimeError(f"{process.args} ended, or said nothing for {_ANSWER_S:g} s")
    return line


def allow_sockets() -> None:
    """As many as may be, for the processes started here too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
        body: bytes = answer.read()
        return body
