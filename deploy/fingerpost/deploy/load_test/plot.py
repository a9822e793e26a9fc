"""A plot of a load test's figures."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.deploy.load_test.measuring.report import Report

__all__ = ["check_plot", "draw"]

_KINDS: Final = (".png", ".svg")


def check_plot(path: Path) -> None:
    """Check before a load test that a plot can be drawn to that file afterwards.

    Raises:
        ConfigurationError: the file's name does not end with .png or .svg.
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl  # noqa: F401 - whether it is there

    if path.suffix.lower() not in _KINDS:
        raise ConfigurationError(f"--plot {path}: name it {' or '.join(_KINDS)}")


def draw(path: Path, report: Report) -> None:
    """Draw latency by percentile, on an axis of nines, and throughput and latency over time."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    figure = Figure(figsize=(9, 10), layout="constrained")
    spectrum, throughput, latency = figure.subplots(3, height_ratios=(3, 2, 2))
    plan = report.plan
    load = "closed loop" if plan.rate is None else f"open loop, {plan.rate:g} images/s due"
    figure.suptitle(f"{plan.model}: {load}, {report.answered:,} images answered")

    # Percent p stands at 1 / (1 - p): each nine is as wide as the one before.
    nines = 0
    for name, points in report.spectrum_ms.items():
        below = [(100 / (100 - percent), ms) for percent, ms in points if percent < 100]
        if below:
            spectrum.plot(*zip(*below, strict=True), label=f"{name} time")
            nines = max(nines, len(str(int(below[-1][0]))))
    ticks = [1, 2, *(10**number for number in range(1, nines))]
    spectrum.set_xscale("log")
    spectrum.set_xticks(ticks, [f"{100 - 100 / each:.10g} %" for each in ticks])
    spectrum.minorticks_off()
    spectrum.set(xlabel="percentile", ylabel="ms", ylim=(0, None))
    spectrum.legend()

    edges = [each.at_s for each in report.over_time] + [report.seconds]
    rates = [each.images_per_s for each in report.over_time]
    throughput.stairs(rates, edges, baseline=None)
    throughput.set(ylabel="images/s answered", ylim=(0, 1.1 * max(rates) or 1))
    p50 = [nan if each.p50_ms is None else each.p50_ms for each in report.over_time]
    p99 = [nan if each.p99_ms is None else each.p99_ms for each in report.over_time]
    latency.stairs(p50, edges, baseline=None, label="p50")
    latency.stairs(p99, edges, baseline=None, label="p99")
    latency.set(xlabel="s", ylabel="ms", ylim=(0, None))
    latency.legend()
    for axes in (spectrum, throughput, latency):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
