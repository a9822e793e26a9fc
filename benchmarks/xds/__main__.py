"""`python -m benchmarks.xds`: what clients of xDS cost a proxy, and how soon they know of a change.

One real proxy before one real Consul agent; 100 workers that are registered and answered for by one
process; up to 1,000 clients, each a gRPC connection of its own over loopback. A worker comes: the
time is from the call that registers it until the last client has been told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import ExitStack
from statistics import median

import grpc

from benchmarks.growth.cluster import Cluster, allow_sockets, helper, next_line, row_name, tell
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port

_PROCESSES = 2
_PAUSE_S = 0.5
_NOTES = (
    "The clients share the machine's cores with the proxy, so what they take to read is in the "
    "times. Each response has all workers.",
    "`CPU s for a change` is the proxy's own processor time until the last client knows. `proxy "
    "MB` is its resident memory.",
)


def _crowd(stack: ExitStack, server: str, count: int, workers: int) -> list[subprocess.Popen[str]]:
    """So many more clients, which all know the workers."""
    shares = [count // _PROCESSES] * _PROCESSES
    shares[0] += count - sum(shares)
    made = [
        stack.enter_context(helper("xds.clients", server, share, workers))
        for share in shares
        if share
    ]
    for each in made:
        next_line(each)
    return made


def _changes(
    cluster: Cluster, crowds: list[subprocess.Popen[str]], rounds: int
) -> dict[str, float]:
    """How soon the middle and the last client know, in seconds, and what it costs the proxy."""
    middle, last, spent = [], [], []
    for _ in range(rounds):
        time.sleep(_PAUSE_S)  # what the change before has left to do
        before = cluster.proxy_cpu_s()
        began = time.monotonic()
        cluster.change()
        told = [json.loads(next_line(each)) for each in crowds]
        spent.append(cluster.proxy_cpu_s() - before)
        middle.append(max(each[0] for each in told) - began)
        last.append(max(each[1] for each in told) - began)
    return {
        "half told s": median(middle),
        "all told s": median(last),
        "slowest s": max(last),
        "CPU s for a change": median(spent),
    }


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=7, help="changes")
    parser.add_argument("--seconds", type=float, default=6, help="of each look at the load")
    given = parser.parse_args()
    allow_sockets()
    figures: dict[str, dict[str, float]] = {}
    server = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        options = ("--xds-port", server.rpartition(":")[2])
        changes = given.rounds * len(given.clients)  # each brings a worker
        cluster = stack.enter_context(Cluster(given.workers + changes + 1, options, grpc=True))
        cluster.grow(given.workers)
        there, crowds, name = 0, list[subprocess.Popen[str]](), ""
        for clients in (0, *sorted(given.clients)):
            crowds += _crowd(stack, server, clients - there, given.workers)
            there = clients
            row = cluster.load(given.seconds)
            del row["Consul CPU %"], row["Consul requests/s"]
            if clients:
                row |= _changes(cluster, crowds, given.rounds)
            name = row_name(given.workers, clients) if clients else f"{given.workers:,} workers"
            figures[name] = row
            tell(name, row)
        versions = {"Consul": cluster.consul_version, "grpcio": grpc.__version__}
    empty, full = (figures[each]["proxy MB"] for each in (next(iter(figures)), name))
    kept = report(
        "xds",
        f"Clients of xDS that follow {given.workers:,} workers",
        figures,
        [
            Goal(
                claim=f"{there:,} clients have been told of a change, s",
                ratio=figures[name]["all told s"],
                bound=1,
                at_most=True,
            ),
            Goal(
                claim="memory of the proxy for a client, KB",
                ratio=(full - empty) * 1000 / there,
                bound=200,
                at_most=True,
            ),
        ],
        versions=versions,
        settings={"rounds": given.rounds, "seconds": given.seconds},
        notes=_NOTES,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
