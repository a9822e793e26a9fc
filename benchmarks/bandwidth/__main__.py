"""`python -m benchmarks.bandwidth`: how many bytes a cluster moves, against its number of workers.

Network namespaces on a bridge: 1, 2, 4 and 8 workers, one hub and 4 clients, every link shaped on
both ends. Workers and the hub, where proxies and balancers stand, have links of `--link` Mbit/s,
clients of four times that, so that the workers' links are the limit. The JPEGs have 640 KB; the
model does nothing, so that the machine's cores are left to the network. Needs root.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.bandwidth.balancers import BALANCERS
from benchmarks.bandwidth.cluster import CLIENTS, WAYS, cluster
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report

_IN_THE_PATH = ("relay", *BALANCERS)


def _streams(way: str, workers: int) -> int:
    """Uploads at a time from each client: four in all for each link that is to be filled."""
    links = 1 if way in _IN_THE_PATH else workers
    return 4 * links // CLIENTS


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--link", type=float, default=20, help="Mbit/s")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=WAYS, help="ways of sending")
    given = parser.parse_args()
    image = photo(1600, 1200, 640)
    figures: dict[str, dict[str, float]] = {way: {} for way in given.only}
    hub_share: dict[int, float] = {}
    versions: dict[str, str] = {}
    for workers in given.workers:
        with cluster(workers, given.link, given.only) as hosts:
            found = in_turn(
                {
                    way: partial(hosts.load, way, image, given.seconds, _streams(way, workers))
                    for way in given.only
                },
                rounds=given.rounds,
            )
            versions |= hosts.versions
        for way, each in found.items():
            figures[way] |= {
                f"{_workers(workers)}, {unit}": each[unit] for unit in ("Mbit/s", "images/s")
            }
        if "direct" in found:
            hub_share[workers] = found["direct"]["hub"]
    link, most = given.link, max(given.workers)

    def against(way: str, workers: int, links: int) -> float:
        ratio: float = figures[way][f"{_workers(workers)}, Mbit/s"] / (links * link)
        return ratio

    goals = [
        Goal(
            claim=f"direct, {_workers(n)} / {n} x {link:g} Mbit/s",
            ratio=against("direct", n, n),
            bound=0.93,
        )
        for n in hub_share
    ]
    goals += [
        Goal(
            claim=f"direct, {_workers(n)}: bytes to the proxy's host / to the workers",
            ratio=share,
            bound=0.01,
            at_most=True,
        )
        for n, share in hub_share.items()
    ]
    goals += [
        Goal(
            claim=f"{way}, {_workers(most)} / one link of {link:g} Mbit/s",
            ratio=against(way, most, 1),
            bound=1.0,
            at_most=True,
        )
        for way in _IN_THE_PATH
        if way in given.only
    ]
    kept = report(
        "bandwidth",
        f"Images through links of {link:g} Mbit/s, all {CLIENTS} clients together",
        figures,
        goals,
        versions=versions,
        settings={
            "link_mbit": link, "clients": CLIENTS, "workers": given.workers,
            "seconds": given.seconds, "rounds": given.rounds, "image_bytes": image.stat().st_size,
        },
    )  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
