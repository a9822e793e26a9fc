"""`fingerpost demo`: train, serve, stream and lose a worker, on this machine."""

from __future__ import annotations

import asyncio
import json as jsonlib
import shutil
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json

if TYPE_CHECKING:
    from fingerpost.deploy.demo.demo import DemoResult
    from fingerpost.deploy.local.cluster import LocalCluster

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(demo)


def demo(
    task: Annotated[
        Literal["classification", "detection"],
        typer.Option(help="detection: find drawn shapes, print mAP, and draw boxes on an image."),
    ] = "classification",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write the images to.",
            show_default="data/digits or data/shapes",
        ),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write the model to.",
            show_default="models/digits or models/shapes",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the cluster running until Ctrl-C.")
    ] = False,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure",
            help="Serve with all security on: mutual TLS, callers, leases, signed registrations; "
            "and show that attackers are refused.",
        ),
    ] = False,
    consul: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --secure: the program `consul`, if not the one on PATH. Without any, the "
            "registry is the embedded one.",
            show_default=False,
        ),
    ] = None,
    trained: Annotated[
        bool,
        typer.Option("--trained", help="Use the model in --out, if there is one: do not train."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Train on 1,797 handwritten digits, serve them from three workers, and stream images.

    One worker is killed during the stream. The exit status is 1 if an image was lost; with
    --secure also if an attacker was not refused. With --task detection a tiny detector is trained
    on drawn shapes; its boxes are judged, and drawn on an image.
    """
    if consul is not None and not secure:
        raise typer.BadParameter("--consul is for --secure")
    name = "digits" if task == "classification" else "shapes"
    data, out_ = data or Path("data", name), out_ or Path("models", name)
    if task == "detection":
        if secure:
            raise typer.BadParameter("--secure is for --task classification")
        from fingerpost.deploy.demo.shapes.show import run_detection_demo

        kept = _keep if keep else None
        report = run_detection_demo(data, out_, trained=trained, json=json, keep=kept)
        if report.failed:
            raise typer.Exit(1)
        return
    files = _trained_model(data, out_, reuse=trained)
    if secure:
        from fingerpost.deploy.demo.secure.show import run_secure_demo

        if not run_secure_demo(out_, files, consul=consul, keep=keep, json=json).safe:
            raise typer.Exit(1)
        return
    _run_demo(out_, files, keep=keep, json=json)


def _trained_model(data: Path, out_: Path, *, reuse: bool) -> list[Path]:
    """Train the model, unless there is one and it is to be used; return the held-out images."""
    from fingerpost.deploy.demo.demo import train_digits
    from fingerpost.deploy.demo.digits import write_digits
    from fingerpost.worker.models.files import find_versions

    if reuse and find_versions(out_):
        err.rule("1  The model is trained already", align="left")
        err.print(f"{out_}")
        return sorted(write_digits(data).held_out.glob("*/*.png"))
    from fingerpost.worker.training import RichProgress

    err.rule("1  Train on handwritten digits", align="left")
    with RichProgress(err) as progress:
        trained, held_out = train_digits(data, out_, progress)
    err.print(
        f"{trained.folder}: {trained.accuracy:.1%} of {trained.validation_images} validation "
        f"images right, trained on {trained.training_images} images in {trained.seconds:.0f} s",
    )
    return sorted(held_out.glob("*/*.png"))


def _run_demo(model: Path, files: list[Path], *, keep: bool, json: bool) -> None:
    from fingerpost.deploy.demo.demo import cluster_config

    config = cluster_config(model)
    log: deque[str] = deque(maxlen=100)

    async def run() -> DemoResult:
        from fingerpost.deploy.local.cluster import LocalCluster

        err.rule("2  Start registry, proxy and 3 workers", align="left")
        async with LocalCluster(
            config, lambda name, line: log.append(f"{name} | {line}")
        ) as cluster:
            with err.status("loading and warming up the model in every worker..."):
                await cluster.wait_ready(timeout_s=60.0)
            result = await _show(cluster, files, json=json)
            if keep:
                await _keep(cluster)
        return result

    try:
        result = asyncio.run(run())
    except BaseException:
        for line in log:
            err.print(line)
        raise
    if result.lost:
        err.print(f"{result.lost} images were lost: {dict(result.errors)}")
        raise typer.Exit(1)


async def _show(cluster: LocalCluster, files: list[Path], *, json: bool) -> DemoResult:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from fingerpost.deploy.demo.demo import CURL_LINES, run_curl, stream_held_out

    err.print(
        f"registry {cluster.registry_url}, proxy {cluster.proxy_url}, "
        f"{len(cluster.workers)} workers ready",
    )
    err.rule("3  Stream the held-out images straight to the workers", align="left")
    bars = Progress(
        TextColumn("streaming; one worker gets SIGKILL"),
        BarColumn(),
        MofNCompleteColumn(),
        console=err,
    )
    with bars:
        bar = bars.add_task("", total=None)
        result = await stream_held_out(
            cluster, files, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    if json:
        print_json(_figures(result))
    else:
        _print_table(result)
    err.rule("4  The same with nothing but curl", align="left")
    proxy = cluster.proxy_url.removeprefix("http://")
    if shutil.which("curl") is None:
        err.print("curl is not installed here; with it, these two lines are complete clients:")
        for line in CURL_LINES:
            err.print(f"$ {line.format(proxy=proxy, image=files[-1])}")
        return result
    for line in CURL_LINES:
        command, output = await run_curl(line, proxy, files[-1])
        err.print(f"$ {command}")
        err.print(jsonlib.dumps(jsonlib.loads(output)))
    return result


def _figures(result: DemoResult) -> dict[str, object]:
    return {
        "images": result.images,
        "accuracy": round(result.accuracy, 4),
        "images_per_s": round(result.images_per_s, 1),
        "lost": result.lost,
        "killed": result.killed,
        "retried": result.retried,
        "share": dict(result.share),
        "direct_bytes": result.direct_bytes,
        "proxy_bytes": result.proxy_bytes,
    }


def _print_table(result: DemoResult) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("images streamed", f"{result.images:,} in {result.seconds:.1f} s")
    table.add_row("accuracy, held-out images", f"{result.accuracy:.1%}")
    table.add_row("images/s", f"{result.images_per_s:,.0f}")
    for address, count in result.share.most_common():
        table.add_row(f"worker {address}", f"{count:,} images, {count / result.images:.0%}")
    table.add_row("killed on the way", f"{result.killed}; {result.retried} images sent again")
    table.add_row("images lost", f"{result.lost}")
    table.add_row("bytes straight to workers", f"{result.direct_bytes:,}")
    table.add_row(
        "image bytes through the proxy",
        f"{result.proxy_bytes:,} ({1 - result.direct_share:.1%})",
    )
    out.print(table)


async def _keep(cluster: LocalCluster) -> None:
    from fingerpost.basics.shutdown import ShutdownSignals
    from fingerpost.client.source import DEFAULT_PROXY

    err.print(f"The cluster stays up at {cluster.proxy_url}; Ctrl-C stops it.")
    if cluster.proxy_url != DEFAULT_PROXY:
        err.print(
            f"The README's commands ask {DEFAULT_PROXY}, and that port was in use here: add "
            f"--proxy {cluster.proxy_url}"
        )
    await ShutdownSignals().cancel_on_signal(cluster.run())
