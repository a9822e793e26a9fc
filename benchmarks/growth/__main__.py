"""`python -m benchmarks.growth`: what more workers and more clients cost, and whom.

The time of a pick is that of the routing classes alone. The rest is one real proxy before one real
Consul agent, with up to 1,000 workers that are registered and answered for by one process, up to
10,000 clients that each hold a question open on a socket of their own, and one of the library's
clients that sends images to the fleet. `--picks-only` needs neither Consul nor time.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.growth.fleet import SERVICE, instance, register
from benchmarks.growth.picks import pick_us
from benchmarks.harness.consul import ConsulAgent, consul
from benchmarks.harness.environments import ROOT
from benchmarks.harness.processes import cpu_s, resident_bytes
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Clients by workers. Ten thousand are not measured with a thousand workers: that is 4 GB at once.
_CROWDS = {1: (), 10: (), 100: (1, 100, 1000, 10_000), 1000: (1000,)}
_SENT_AT = 100
_NOTES = (
    "Every client is a real socket that holds a question open. The workers are real registrations "
    "with an address each, which one process answers for.",
    "`all notified s` is how long it takes until every client has got one change and waits "
    "again: each is sent the whole list (`answer KB`).",
)
_ANSWER_S = 300.0
_SETTLE_S = 3.0
_POLLS = "fingerpost_proxy_watch_polls_total"


class Cluster:
    """A Consul agent, a proxy before it, and a fleet of so many at most."""

    def __init__(self, most: int) -> None:
        self._most = most
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
                 "--registry", f"consul://{address}", "--service", SERVICE]
            )
        )  # fmt: skip
        self._pid = process.pid
        wait_for(f"{self.proxy}/health/ready", process)
        fleet = stack.enter_context(_helper("fleet", self._most))
        self._ports = json.loads(_line(fleet))

    def grow(self, workers: int) -> float:
        """Register so many in all, and wait until the proxy lists them; kilobytes of its answer."""
        for number in range(self._workers, workers):
            register(self._agent.url, instance(number, self._ports[number]))
        self._workers = workers
        url = f"{self.proxy}/v1/resolve/{SERVICE}"
        until = time.monotonic() + _ANSWER_S
        while len(json.loads(body := _get(url))["instances"]) < workers:
            if time.monotonic() > until:
                raise RuntimeError(f"the proxy does not list {workers} workers")
            time.sleep(0.1)
        return len(body) / 1000

    def change(self) -> None:
        """A worker moves to another port, so that all who wait are told."""
        self._changes += 1
        register(self._agent.url, instance(0, self._ports[self._changes % len(self._ports)]))

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


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="workers")
    parser.add_argument("--rounds", type=int, default=9, help="of the picks")
    parser.add_argument("--seconds", type=float, default=8, help="of each look at the load")
    parser.add_argument("--picks-only", action="store_true")
    given = parser.parse_args()
    sizes = [workers for workers in _CROWDS if workers <= given.most]
    figures = in_turn(
        {_named(workers): partial(_picks, workers) for workers in sizes}, rounds=given.rounds
    )
    goals = [
        Goal(
            claim=f"pick, us, {sizes[-1]:,} workers",
            ratio=figures[_named(sizes[-1])]["pick us"],
            bound=10,
            at_most=True,
        )
    ]
    versions: dict[str, str] = {}
    if not given.picks_only:
        _allow_sockets()
        goals += _measure(sizes, given.seconds, figures, versions)
    kept = report(
        "growth",
        "What more workers and more clients cost",
        figures,
        goals,
        versions=versions,
        settings={"rounds": given.rounds, "seconds": given.seconds},
        notes=[] if given.picks_only else _NOTES,
    )
    return 0 if kept else 1


def _picks(workers: int) -> dict[str, float]:
    return {"pick us": pick_us(workers)}


def _measure(
    sizes: Sequence[int],
    seconds: float,
    figures: dict[str, dict[str, float]],
    versions: dict[str, str],
) -> list[Goal]:
    """The figures of real processes; each crowd of clients meets a proxy that has just started."""
    goals = []
    with Cluster(sizes[-1]) as cluster:
        versions["Consul"] = cluster.consul_version
        for workers in sizes:
            figures[_named(workers)] |= _fleet(cluster, workers, seconds)
            if workers == _SENT_AT:
                lookups, row = _traffic(cluster, seconds)
                figures[f"{_named(workers)}, images sent"] = row
                goals += _traffic_goals(lookups, figures[_named(workers)], row)
    for workers in sizes:
        if not _CROWDS[workers]:
            continue
        with Cluster(workers) as cluster:
            cluster.grow(workers)
            for clients, row in _crowds(cluster, _CROWDS[workers], seconds):
                name = _named(workers, clients)
                figures[name] = row
                _tell(name, row)
                goals.append(
                    Goal(
                        claim=f"watches of the service at Consul, {name}",
                        ratio=row["watches"],
                        bound=1,
                        at_most=True,
                    )
                )
    return goals


def _named(workers: int, clients: int = 0) -> str:
    def count(number: int, noun: str) -> str:
        return f"{number:,} {noun}{'' if number == 1 else 's'}"

    return ", ".join([count(workers, "worker"), *([count(clients, "client")] * bool(clients))])


def _fleet(cluster: Cluster, workers: int, seconds: float) -> dict[str, float]:
    """With so many workers, and nobody who asks."""
    row = {"answer KB": cluster.grow(workers)}
    row["client KB"] = _clients(cluster.proxy, count=10)["bytes"] / 1000
    row |= cluster.load(seconds)
    _tell(_named(workers), row)
    return row


def _crowds(
    cluster: Cluster, sizes: Sequence[int], seconds: float
) -> Iterator[tuple[int, dict[str, float]]]:
    """With so many clients that wait for a change, which then comes; and then with more."""
    with ExitStack() as stack:
        there = 0
        crowds: list[subprocess.Popen[str]] = []
        for clients in sizes:
            crowds.append(stack.enter_context(_helper("watchers", cluster.proxy, clients - there)))
            there = clients
            _line(crowds[-1])
            row = cluster.load(seconds)
            row["watches"] = cluster.watches() - 1  # the other is that of the list of services
            began = time.monotonic()
            cluster.change()
            for crowd in crowds:
                _line(crowd)
            row["all notified s"] = time.monotonic() - began
            row["proxy's peak MB"] = cluster.peak_mb()
            yield clients, row


def _traffic(cluster: Cluster, seconds: float) -> tuple[float, dict[str, float]]:
    """Lookups at the proxy while a client sends images, and what the proxy had to do."""
    sending_s = seconds + 2 * _SETTLE_S
    with _helper("clients", cluster.proxy, 0, sending_s) as sender:
        time.sleep(_SETTLE_S)
        lookups = cluster.lookups()
        row = cluster.load(seconds)
        lookups = cluster.lookups() - lookups
        row["images/s"] = json.loads(_line(sender))["images"] / sending_s
    _tell("images sent", row)
    return lookups, row


def _traffic_goals(lookups: float, idle: dict[str, float], busy: dict[str, float]) -> list[Goal]:
    more_s = (busy["proxy CPU %"] - idle["proxy CPU %"]) / 100
    return [
        Goal(
            claim="lookups at the proxy for the images sent", ratio=lookups, bound=0, at_most=True
        ),
        # Next to nothing: a lookup takes some 40. What the clock of processor time can tell is 2.
        Goal(
            claim="the proxy's CPU for an image sent, us",
            ratio=max(0.0, more_s) / busy["images/s"] * 1e6,
            bound=5,
            at_most=True,
        ),
    ]


def _tell(name: str, row: dict[str, float]) -> None:
    print(f"  {name}: {', '.join(f'{key} {value:.4g}' for key, value in row.items())}", flush=True)


def _clients(proxy: str, *, count: int) -> dict[str, float]:
    with _helper("clients", proxy, count, 0) as process:
        found: dict[str, float] = json.loads(_line(process))
        return found


@contextmanager
def _helper(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A module of this package as a process."""
    words = [sys.executable, "-m", f"benchmarks.growth.{name}", *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    """The next that it prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _ANSWER_S)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise RuntimeError(f"{process.args} ended, or said nothing for {_ANSWER_S:g} s")
    return line


def _allow_sockets() -> None:
    """As many as may be, for the processes started here too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
        body: bytes = answer.read()
        return body


if __name__ == "__main__":
    raise SystemExit(main())
