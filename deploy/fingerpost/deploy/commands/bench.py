"""`fingerpost bench`: measure the throughput and latency of a running cluster."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, table_of_figures
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.deploy.output_files import ReportFiles
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from fingerpost.deploy.load_test import Report

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(bench))


def bench(
    *,
    model: Annotated[str, typer.Argument(help="digits, digits@3 or digits@stable")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE|DIR",
            help="Images to send in turn; by default a generated JPEG of some 20 KB.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Open loop: images a second, sent whether answers come or not."),
    ] = None,
    arrivals: Annotated[
        Literal["poisson", "constant"] | None,
        typer.Option(help="With --rate: random intervals, as of many users, or equal ones."),
    ] = None,
    max_outstanding: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --rate: most images in flight; further ones wait. [default: 256]",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Closed loop: images in flight; by default adapted to the cluster."
        ),
    ] = None,
    expected_interval: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Closed loop: estimate the latency for a sender with this interval in seconds.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 10.0,
    warm_up: Annotated[
        float, typer.Option(metavar="S", help="How long to run the load before measuring.")
    ] = 2.0,
    deadline: Annotated[
        float, typer.Option(metavar="S", help="How long an image may take, including retries.")
    ] = 30.0,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Routing policy: hot-cold, power-of-two, round-robin, ..."
        ),
    ] = None,
    relay: options.Relay = False,
    priority: options.Priority = None,
    wait_for_ready: options.WaitForReady = 5.0,
    json: options.JsonReport = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw latency and throughput, as .png or .svg."),
    ] = None,
    cluster: ClusterTarget,
) -> None:
    """Load a cluster through the real client, and print throughput and latency.

    fingerpost bench digits --rate 200 --seconds 30 --plot out.png

    fingerpost bench digits photos/ --concurrency 64 --json -

    With --rate each image is due at a time of its own, and its latency counts from then, so that a
    stall shows in every image that it delayed. Without --rate each answer lets the next image go (a
    closed loop), for the highest throughput. Ctrl-C ends the measurement early and prints what was
    measured. The exit status is 1 if an image was not answered.
    """
    from fingerpost.client import ClientConfig, RoutingConfig
    from fingerpost.deploy.load_test import LoadTest, Plan
    from fingerpost.deploy.load_test.plot import draw
    from fingerpost.deploy.load_test.samples import drawn_image, read_images

    _check_loop(
        rate,
        only_open={"--arrivals": arrivals, "--max-outstanding": max_outstanding},
        only_closed={"--concurrency": concurrency, "--expected-interval": expected_interval},
    )
    plan = Plan(
        model=model,
        seconds=seconds,
        warm_up_s=warm_up,
        deadline_s=deadline,
        concurrency=concurrency,
        rate=rate,
        arrivals=arrivals or "poisson",
        max_outstanding=256 if max_outstanding is None else max_outstanding,
        expected_interval_s=expected_interval,
    )
    files = ReportFiles(json, plot)
    routing = RoutingConfig(policy=policy) if policy else RoutingConfig()
    config = ClientConfig(routing=routing, wait_for_ready_s=wait_for_ready)
    client = cluster.client(config, relay=relay, priority=priority)
    samples = read_images(images) if images else [drawn_image()]

    with err.status("looking up the workers") as status:
        test = LoadTest(client, samples, plan, progress=status.update)

        async def run() -> None:
            async with client:
                await test.run()

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run())
    report = test.report()
    if report is None:
        err.print("nothing was measured: the run ended during the warm-up")
        raise typer.Exit(1)
    files.write(report, draw=draw, show=_show)
    if not report.good:
        raise typer.Exit(1)


def _check_loop(
    rate: float | None, *, only_open: dict[str, object], only_closed: dict[str, object]
) -> None:
    for option, value in (only_closed if rate is not None else only_open).items():
        if value is not None:
            one, other = ("closed", "without") if rate is not None else ("open", "with")
            raise ConfigurationError(f"{option} is for the {one} loop, {other} --rate")


def _show(report: Report) -> None:
    plan = report.plan
    load = "closed loop"
    if plan.rate is not None:
        load = f"open loop, {plan.rate:g} images/s due ({plan.arrivals})"
    ended = ", ended early" if report.interrupted else ""
    out.print(
        f"{plan.model}: {load}, {report.seconds:g} s after {plan.warm_up_s:g} s of warm-up{ended}",
    )
    for table in _tables(report):
        out.print()
        out.print(table)
    if report.notes:
        out.print()
    for note in report.notes:
        out.print(f"Note: {note}.")


def _tables(report: Report) -> list[Table]:
    counts = table_of_figures("", "")
    for name, value in (
        ("images sent", f"{report.sent:,}"),
        ("answered", f"{report.answered:,}"),
        ("failed", _by_code(report.failed, report.errors)),
        ("cut off by the end", f"{report.unfinished:,}" if report.unfinished else ""),
        ("not sent", f"{report.not_sent:,}" if report.not_sent else ""),
        ("retries", _by_code(sum(report.retries.values()), report.retries)),
        ("images/s", f"{report.images_per_s:,.1f}"),
        ("MB/s", f"{report.mb_per_s:,.2f}"),
        ("in flight, mean", f"{report.in_flight:,.1f}"),
        ("this program", f"{report.cpu:.0%} of a core"),
    ):
        if value:
            counts.add_row(name, value)

    corrected = f"if sent every {report.plan.expected_interval_s} s, estimated"
    latency = table_of_figures("ms", "p50", "p90", "p99", "p99.9", "max")
    for name, each in (
        ("from when it was due" if report.loop == "open" else corrected, report.response_ms),
        ("from when it was sent", report.service_ms),
        ("sent late by this program", report.lag_ms if report.loop == "open" else None),
    ):
        if each is not None:
            figures = (each.p50, each.p90, each.p99, each.p99_9, each.max)
            latency.add_row(name, *(f"{figure:,.1f}" for figure in figures))

    workers = table_of_figures("worker", "images", "share", "p50 ms", "p99 ms")
    for worker in report.workers:
        workers.add_row(
            worker.address,
            f"{worker.images:,}",
            f"{worker.share:.1%}",
            f"{worker.p50_ms:,.1f}",
            f"{worker.p99_ms:,.1f}",
        )
    return [counts, latency, workers]


def _by_code(total: int, codes: dict[str, int]) -> str:
    counts = ", ".join(f"{code} {count:,}" for code, count in codes.items())
    return f"{total:,}: {counts}" if counts else f"{total:,}"
