"""The plots: SVG, the same bytes each time from the same records and the same matplotlib."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.document.records import Record

__all__ = ["draw"]

_OURS = "#c1440e"
_COLOURS = ("#1f4e79", "#5b8db8", "#6b8e23", "#8a6d9e", "#b8860b", "#777777")


def draw(records: Mapping[str, Record], folder: Path) -> None:
    """Draw what there are records for."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "fingerpost", "font.size": 9}
    with mpl.rc_context(style):
        for name, (record, plot) in _PLOTS.items():
            if record in records:
                figure = plot(records[record])
                metadata = {"Date": None, "Creator": None}
                figure.savefig(folder / f"{name}.svg", format="svg", metadata=metadata)


def _bandwidth(record: Record) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    link, image_bytes = (float(record.settings[key]) for key in ("link_mbit", "image_bytes"))
    workers = [int(number) for number in record.settings["workers"]]
    axes.plot(
        workers, [link * n for n in workers], color="black", linestyle="--", linewidth=1,
        label="the workers' links",
    )  # fmt: skip
    axes.axhline(link, color="black", linestyle=":", linewidth=1, label="one link")
    rivals = iter(_COLOURS)
    for way, row in record.figures.items():
        points = {int(key.split()[0]): value for key, value in row.items() if "Mbit/s" in key}
        ours = way == "direct"
        axes.plot(
            list(points), list(points.values()), marker="o", markersize=4, label=way,
            color=_OURS if ours else next(rivals), linewidth=2.5 if ours else 1.2,
            zorder=3 if ours else 2,
        )  # fmt: skip
    axes.set(
        xlabel="workers", ylabel="Mbit/s of images, all clients together", xticks=workers,
        title=f"Every link {link:g} Mbit/s, JPEGs of {image_bytes / 1000:.0f} KB",
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    images = axes.twinx()
    images.set(ylabel="images/s", ylim=[mbit / (image_bytes * 8e-6) for mbit in axes.get_ylim()])
    images.spines["top"].set_visible(False)
    _finish(axes)
    return figure


def _worker(record: Record) -> Figure:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    rows = {name: row["images/s"] for name, row in record.figures.items()}
    names = sorted(rows, key=lambda name: rows[name])
    colours = [
        _OURS if name.startswith("Fingerpost")
        else "#bbbbbb" if name.startswith("limit") else _COLOURS[0]
        for name in names
    ]  # fmt: skip
    bars = axes.barh(names, [rows[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set(xlabel="images/s", title=record.title)
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _growth(record: Record) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    picks, loads = {}, {}
    for name, row in record.figures.items():
        numbers = [int(each.replace(",", "")) for each in re.findall(r"[\d,]*\d", name)]
        if "pick us" in row:
            picks[numbers[0]] = row["pick us"]
        elif len(numbers) == 2 and numbers[0] == 100:
            loads[numbers[1]] = row
    left.plot(list(picks), list(picks.values()), marker="o", color=_OURS, label="a pick")
    left.axhline(10, color="black", linestyle="--", linewidth=1, label="goal at 1,000")
    left.set(xscale="log", xlabel="workers", ylabel="us", title="Time of a pick")
    for column, colour in (("proxy CPU %", _OURS), ("Consul CPU %", _COLOURS[0])):
        points = [row[column] for row in loads.values()]
        right.plot(list(loads), points, marker="o", color=colour, label=column)
    right.set(
        xscale="log", xlabel="clients that wait for changes", ylabel="% of a core",
        title="Load with 100 workers",
    )  # fmt: skip
    for axes in (left, right):
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(bottom=0)
        _finish(axes)
    return figure


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


_PLOTS: Mapping[str, tuple[str, Callable[[Record], Figure]]] = {
    "bandwidth": ("bandwidth", _bandwidth),
    "worker": ("worker-mobilenet", _worker),
    "growth": ("growth", _growth),
}
