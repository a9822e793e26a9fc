"""`python -m benchmarks.routing`: the tables, sweeps and plots of docs/routing.md.

Everything is seeded; the figures are simulated milliseconds and do not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from benchmarks.routing.central_queue import central_queue
from benchmarks.routing.scenarios import (
    DEFAULT_WORKERS,
    EQUAL,
    FEW,
    FOUR,
    HALF_SLOW,
    MIXED,
    POLICIES,
    RAMP,
    SPREAD,
    TESTBED,
    TWO_SLOW,
    few,
)
from benchmarks.routing.simulator import simulate
from fingerpost.client.routing import RoutingConfig

if TYPE_CHECKING:
    from benchmarks.routing.scenario import Result, Scenario

# Values of settings of `RoutingConfig`: "group.name".
SWEEPS: dict[str, Sequence[float]] = {
    "hot_cold.hot_quantile": (0.3, 0.5, 0.6, 0.7, 0.84, 1.0),
    "hot_cold.cost_tolerance": (1.0, 1.25, 1.5, 2.0, 3.0),
    "hot_cold.outlier_factor": (2.0, 4.0, 5.0, 8.0, 1e9),
    "hot_cold.exploration_rate": (0.0, 1 / 1024, 1 / 256, 1 / 64),
    "probing.probes_per_request": (0.25, 0.5, 1.0, 2.0, 3.0),
    "probing.pool_size": (4, 8, 16, 32),
    "probing.report_max_age_s": (0.1, 0.3, 1.0, 3.0),
    "probing.sync_threshold_rtts": (20.0, 1e9),
    "probing.worker_min_interval_s": (0.0, 0.01, 0.1),
    "probing.report_min_interval_s": (0.0, 0.005, 0.05),
}
_T_95 = {2: 12.71, 3: 4.30, 5: 2.78}  # Student's, for the mean of so many
Row = dict[str, Any]


def run(scenario: Scenario, policy: str, setting: str = "", value: float = 0.0) -> Result:
    """Simulate a scenario with a policy, and perhaps one setting that is not the default."""
    routing = RoutingConfig(policy=policy)
    if setting:
        group, _, name = setting.partition(".")
        changed = replace(getattr(routing, group), **{name: value})
        routing = replace(routing, **{group: changed})
    return simulate(replace(scenario, routing=routing))


def ms(result: Result, share: float) -> float:
    """A quantile of the latency, in milliseconds."""
    return round(1000 * result.quantile(share), 1)


def table(scenarios: dict[str, Scenario]) -> list[Row]:
    """Latencies (p50, p90 and p99) of every policy in every scenario."""
    rows = []
    for policy in POLICIES:
        row: Row = {"policy": policy}
        for name, scenario in scenarios.items():
            result = run(scenario, policy)
            row[name] = [ms(result, share) for share in (0.5, 0.9, 0.99)]
        rows.append(row)
        print(f"| {policy} |", *(f"{a:.0f} / {b:.0f} / {c:.0f} |" for _, (a, b, c) in pairs(row)))
    return rows


def pairs(row: Row) -> list[tuple[str, Any]]:
    """All columns of a row but the first."""
    return list(row.items())[1:]


def duel(scenarios: dict[str, Scenario], other: str, seeds: int) -> list[Row]:
    """Quantiles of hot-cold over another policy's: the mean of several seeds, +- its 95 % interval.

    It is the mean of the logarithms, so that both policies are treated alike.
    """
    rows = []
    for name, scenario in scenarios.items():
        logs: list[list[float]] = [[], [], [], []]
        for seed in range(1, seeds + 1):
            seeded = replace(scenario, seed=seed)
            ours, theirs = run(seeded, "hot-cold"), run(seeded, other)
            for log, share in zip(logs, (0.5, 0.9, 0.99), strict=False):
                log.append(math.log(ours.quantile(share) / theirs.quantile(share)))
            logs[3].append(math.log(fmean(ours.latencies) / fmean(theirs.latencies)))
        row: Row = {"cluster": name}
        for label, log in zip(("p50", "p90", "p99", "mean"), logs, strict=True):
            within = _T_95[seeds] * stdev(log) / math.sqrt(seeds)
            row[label] = [round(math.exp(fmean(log)), 3), round(within, 3)]
        rows.append(row)
        print(f"| {name} |", *(f"{mean:.3f} +- {within:.3f} |" for _, (mean, within) in pairs(row)))
    return rows


def defaults(scenarios: Mapping[str, Scenario], seeds: int) -> list[Row]:
    """Workers of default options: hot-cold over C3, and its mean over that of a central queue.

    The central queue has no network, so that a round trip is added to it. The means are those of
    logarithms of several seeds.
    """
    rows = []
    for name, scenario in scenarios.items():
        logs: list[list[float]] = [[], [], [], []]
        figures = []
        for seed in range(1, seeds + 1):
            seeded = replace(scenario, seed=seed)
            ours, theirs = run(seeded, "hot-cold"), run(seeded, "c3")
            figures.append([1000 * fmean(ours.latencies), ms(ours, 0.5), ms(ours, 0.99)])
            queued = [each + scenario.rtt_s for each in central_queue(seeded)]
            logs[0].append(math.log(fmean(ours.latencies) / fmean(queued)))
            logs[1].append(math.log(fmean(ours.latencies) / fmean(theirs.latencies)))
            for log, share in zip(logs[2:], (0.5, 0.99), strict=True):
                log.append(math.log(ours.quantile(share) / theirs.quantile(share)))
        row: Row = {"workers": name}
        row["mean, p50, p99"] = [round(fmean(each), 1) for each in zip(*figures, strict=True)]
        labels = ("mean / central", "mean / C3", "p50 / C3", "p99 / C3")
        row |= {
            label: round(math.exp(fmean(log)), 3) for label, log in zip(labels, logs, strict=True)
        }
        rows.append(row)
        print(f"| {name} |", *(f"{figure} |" for _, figure in pairs(row)), flush=True)
    return rows


def ramp(scenario: Scenario, steps: int) -> list[Row]:
    """The p99.9 at each load, and the share of requests that met the timeout."""
    assert isinstance(scenario.load, tuple)
    low, high = scenario.load
    rows = []
    for policy in POLICIES:
        result = run(replace(scenario, warmup_s=0.0), policy)
        born = zip(result.arrivals, result.latencies, strict=True)
        bins: list[list[float]] = [[] for _ in range(steps)]
        for at, latency in born:
            bins[min(steps - 1, int(at / scenario.duration_s * steps))].append(latency)
        row: Row = {"policy": policy}
        for index, latencies in enumerate(bins):
            latencies.sort()
            load = low + (high - low) * (index + 0.5) / steps
            late = sum(each >= scenario.timeout_s for each in latencies)
            row[f"{load:.2f}"] = [
                round(1000 * latencies[int(0.999 * len(latencies))]),
                late / len(latencies),
            ]
        rows.append(row)
        first = next((load for load, (_, late) in pairs(row) if late), "none")
        print(f"| {policy} | first timeouts at load {first} |")
    return rows


def by_load(scenario: Scenario, loads: Sequence[float]) -> list[Row]:
    """Latencies (p50 and p99) of every policy at each load."""
    rows = []
    for policy in POLICIES:
        row: Row = {"policy": policy}
        for load in loads:
            result = run(replace(scenario, load=load), policy)
            row[str(load)] = [ms(result, 0.5), ms(result, 0.99)]
        rows.append(row)
        print(f"| {policy} |", *(f"{half:.0f} / {tail:.0f} |" for _, (half, tail) in pairs(row)))
    return rows


def sweep(scenarios: dict[str, Scenario], sweeps: dict[str, Sequence[float]]) -> list[Row]:
    """Latencies (p50 and p99) for each value of each setting, the others at their defaults."""
    rows = []
    for name, values in sweeps.items():
        for value in values:
            row: Row = {"setting": f"{name.partition('.')[2]} = {value:.4g}"}
            for label, scenario in scenarios.items():
                result = run(scenario, "hot-cold", name, value)
                row[label] = [ms(result, 0.5), ms(result, 0.99)]
            rows.append(row)
            figures = (f"{half:.0f} / {tail:.0f} |" for _, (half, tail) in pairs(row))
            print(f"| {row['setting']} |", *figures)
    return rows


def plot(rows: list[Row], timeout_s: float, title: str, path: Path) -> None:
    """Draw p50 and p99 against load, one line for each policy."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "fingerpost"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for column, (axis, label) in enumerate(zip(axes, ("p50", "p99"), strict=True)):
        for row in rows:
            points = pairs(row)
            loads = [float(load) for load, _ in points]
            width = 2.4 if row["policy"] == "hot-cold" else 1.2
            values = [figures[column] for _, figures in points]
            axis.plot(loads, values, label=row["policy"], linewidth=width, marker=".")
        axis.axhline(1000 * timeout_s, color="gray", linewidth=0.6, linestyle=":")
        axis.set(xlabel="load / capacity", title=f"{label}, {title}", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("ms")
    axes[1].legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Run all simulations, or short ones with `--smoke`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short runs, without any claim")
    parser.add_argument("--defaults", action="store_true", help="only workers of default options")
    parser.add_argument("--out", type=Path, default=Path(".cache/routing"), help="folder")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    testbed, spread, rising = TESTBED, SPREAD, RAMP
    small = {"equal": EQUAL, "two slow": TWO_SLOW, "mixed": MIXED}
    half_slow, four, fews, seeds = HALF_SLOW, FOUR, FEW, 5
    loads: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    spread_loads: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
    sweeps = SWEEPS
    if options.smoke:
        testbed = replace(TESTBED, clients=10, speeds=(1.0,) * 20, duration_s=5.0)
        spread = replace(SPREAD, duration_s=8.0)
        rising = replace(RAMP, clients=10, speeds=(1.0,) * 10, duration_s=10.0)
        small = {name: replace(each, duration_s=10.0) for name, each in small.items()}
        half_slow, four, fews, seeds = {}, replace(FOUR, duration_s=10.0), FEW[:1], 2
        loads = spread_loads = (0.5, 0.9)
        sweeps = {"hot_cold.hot_quantile": (0.6, 0.84)}
    report: dict[str, Any] = {}
    print("## Default workers: hot-cold, and its figures over C3's and a central queue's")
    shown = dict(list(DEFAULT_WORKERS.items())[:1]) if options.smoke else DEFAULT_WORKERS
    report["defaults"] = defaults(shown, min(3, seeds))
    if options.defaults:
        return
    print("## Testbed and small clusters: p50 / p90 / p99, ms")
    columns = {f"testbed {load:.0%}": replace(testbed, load=load) for load in (0.7, 0.9)}
    report["table"] = table({**columns, "spread": spread, **small})
    print("## Ramp")
    report["ramp"] = ramp(rising, steps=10)
    size = len(testbed.speeds) // 2
    half = replace(testbed, clients=size, speeds=(1.0,) * size, duration_s=10.0)
    for name, cluster, at in (("testbed", half, loads), ("spread", spread, spread_loads)):
        print(f"## {name} by load: p50 / p99, ms")
        report[name] = rows = by_load(cluster, at)
        plot(rows, cluster.timeout_s, name, out / f"routing-{name}.svg")
    print("## Hot-cold / C3, by seeds")
    quick = replace(half, duration_s=10.0)
    clusters = {"testbed": quick, "spread": replace(spread, duration_s=24.0), **half_slow}
    clusters |= {"two slow": replace(small["two slow"], duration_s=100.0), "four": four}
    report["c3"] = duel(
        {
            **{
                f"{name}, {load:.0%}": replace(each, load=load)
                for name, each in clusters.items()
                for load in (0.7, 0.9)
            },
            "equal, 70%": small["equal"],
            "mixed, 60%": small["mixed"],
        },
        "c3",
        seeds,
    )
    print("## Hot-cold / power of two, few equal workers, by seeds")
    report["few"] = duel(
        {f"{w} workers, {c} clients, {s} slots": few(w, c, s) for w, c, s in fews},
        "power-of-two",
        seeds,
    )
    print("## Sweeps: p50 / p99, ms")
    swept = {"testbed": replace(half, load=0.9), "spread": spread, "equal": small["equal"]}
    report["sweeps"] = sweep(swept, sweeps)
    (out / "routing.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{time.monotonic() - began:.0f} s; figures and plots are in {out}")


if __name__ == "__main__":
    main()
