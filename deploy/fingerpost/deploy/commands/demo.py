"""`fingerpost demo`: train, serve, stream and lose a worker, on this machine."""

from __future__ import annotations

import asyncio
import json as jsonlib
import shutil
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write the digits to.")
    ] = Path("data/digits"),
    out_: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write the model to.")
    ] = Path("models/digits"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the cluster running until Ctrl-C.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train on 1,797 handwritten digits, serve them from three workers, and stream images.

    One worker is killed during the stream. The exit status is 1 if an image was lost.
    """
    from fingerpost.deploy.demo.demo import cluster_config, train_digits
    from fingerpost.worker.training import RichProgress

    err.rule("1  Train on handwritten digits", align="left")
    with RichProgress(err) as progress:
        trained, held_out = train_digits(data, out_, progress)
    err.print(
        f"{trained.folder}: {trained.accuracy:.1%} of {trained.validation_images} validation "
        f"images right, trained on {trained.training_images} images in {trained.seconds:.0f} s",
    )
    config = cluster_config(out_)
    files = sorted(held_out.glob("*/*.png"))
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
    from fingerpost.client.source import DEFAULT_PROXY
    from fingerpost.registry.shutdown import ShutdownSignals

    err.print(f"The cluster stays up at {cluster.proxy_url}; Ctrl-C stops it.")
    if cluster.proxy_url != DEFAULT_PROXY:
        err.print(
            f"The README's commands ask {DEFAULT_PROXY}, and that port was in use here: add "
            f"--proxy {cluster.proxy_url}"
        )
    await ShutdownSignals().cancel_on_signal(cluster.run())
