"""`python -m benchmarks.growth`: what more workers and more clients cost, and whom.

The time of a pick is that of the routing classes alone. The rest is one real proxy before one real
Consul agent, with up to 1,000 workers that are registered and answered for by one process, up to
10,000 clients that each hold a question open on a socket of their own, and one of the library's
clients that sends images to the fleet. `--picks-only` needs neither Consul nor time.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.growth.cluster import Cluster, allow_sockets, helper, next_line, row_name, tell
from benchmarks.growth.picks import pick_us
from benchmarks.harness.results import Goal, in_turn, report

if TYPE_CHECKING:
    import subprocess
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
_SETTLE_S = 3.0


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
        {row_name(workers): partial(_picks, workers) for workers in sizes}, rounds=given.rounds
    )
    goals = [
        Goal(
            claim=f"pick, us, {sizes[-1]:,} workers",
            ratio=figures[row_name(sizes[-1])]["pick us"],
            bound=10,
            at_most=True,
        )
    ]
    versions: dict[str, str] = {}
    if not given.picks_only:
        allow_sockets()
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
            figures[row_name(workers)] |= _fleet(cluster, workers, seconds)
            if workers == _SENT_AT:
                lookups, row = _traffic(cluster, seconds)
                figures[f"{row_name(workers)}, images sent"] = row
                goals += _traffic_goals(lookups, figures[row_name(workers)], row)
    for workers in sizes:
        if not _CROWDS[workers]:
            continue
        with Cluster(workers) as cluster:
            cluster.grow(workers)
            for clients, row in _crowds(cluster, _CROWDS[workers], seconds):
                name = row_name(workers, clients)
                figures[name] = row
                tell(name, row)
                goals.append(
                    Goal(
                        claim=f"watches of the service at Consul, {name}",
                        ratio=row["watches"],
                        bound=1,
                        at_most=True,
                    )
                )
    return goals


def _fleet(cluster: Cluster, workers: int, seconds: float) -> dict[str, float]:
    """With so many workers, and nobody who asks."""
    row = {"answer KB": cluster.grow(workers)}
    row["client KB"] = _clients(cluster.proxy, count=10)["bytes"] / 1000
    row |= cluster.load(seconds)
    tell(row_name(workers), row)
    return row


def _crowds(
    cluster: Cluster, sizes: Sequence[int], seconds: float
) -> Iterator[tuple[int, dict[str, float]]]:
    """With so many clients that wait for a change, which then comes; and then with more."""
    with ExitStack() as stack:
        there = 0
        crowds: list[subprocess.Popen[str]] = []
        for clients in sizes:
            crowds.append(
                stack.enter_context(helper("growth.watchers", cluster.proxy, clients - there))
            )
            there = clients
            next_line(crowds[-1])
            row = cluster.load(seconds)
            row["watches"] = cluster.watches() - 1  # the other is that of the list of services
            began = time.monotonic()
            cluster.change()
            for crowd in crowds:
                next_line(crowd)
            row["all notified s"] = time.monotonic() - began
            row["proxy's peak MB"] = cluster.peak_mb()
            yield clients, row


def _traffic(cluster: Cluster, seconds: float) -> tuple[float, dict[str, float]]:
    """Lookups at the proxy while a client sends images, and what the proxy had to do."""
    sending_s = seconds + 2 * _SETTLE_S
    with helper("growth.clients", cluster.proxy, 0, sending_s) as sender:
        time.sleep(_SETTLE_S)
        lookups = cluster.lookups()
        row = cluster.load(seconds)
        lookups = cluster.lookups() - lookups
        row["images/s"] = json.loads(next_line(sender))["images"] / sending_s
    tell("images sent", row)
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


def _clients(proxy: str, *, count: int) -> dict[str, float]:
    with helper("growth.clients", proxy, count, 0) as process:
        found: dict[str, float] = json.loads(next_line(process))
        return found


if __name__ == "__main__":
    raise SystemExit(main())
