"""`fingerpost stream`: classify a folder of images, and write a file of results."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, print_json
from fingerpost.deploy.file_names import printable_name
from fingerpost.deploy.image_files import ImageFiles, missing_source
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.deploy.results_log import ResultsLog, ResultsOf
from fingerpost.deploy.setting_names import with_options
from fingerpost.deploy.whole_run import WholeRun, check_model

if TYPE_CHECKING:
    from fingerpost.client import Client, Result

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(stream))


def stream(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|FILE|GLOB|-...",
            help="Folders, files, patterns, or - for paths on standard input.",
        ),
    ],
    model: Annotated[str, typer.Option(help="digits, digits@3 or digits@stable")],
    results: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="File of results, a line of JSON for each image."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many predictions to write.")] = 5,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Images in flight; by default adapted to the cluster.")
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Scale images down to the size that the model takes.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Send images again that failed in an earlier run."),
    ] = False,
    json: options.Json = False,
    relay: options.Relay = False,
    priority: options.Priority = None,
    deadline: options.Deadline = 30.0,
    wait_for_ready: options.WaitForReady = 5.0,
    cluster: ClusterTarget,
) -> None:
    """Classify many images, and write each result as it arrives.

    The same command continues an interrupted run: images that have a line in --out are not sent
    again. Of folders and patterns, hidden files and files that are not images are skipped. The exit
    status is 1 if an image failed, in this run or in an earlier one. What concerns all images, such
    as a model that no worker serves, ends the run.
    """
    from fingerpost.client import ClientConfig

    if (missing := missing_source(sources)) is not None:
        raise typer.BadParameter(
            f"there is no file or folder {printable_name(missing)!r}", param_hint="DIR|FILE|GLOB|-"
        )
    config = ClientConfig(timeout_s=deadline, wait_for_ready_s=wait_for_ready)
    files = ImageFiles(sources)
    found = files.names()
    with ResultsLog(results, ResultsOf(model=model, top=top, shrink=shrink)) as log:
        skipped = log.done - (log.failed if retry_failed else set())
        names = _off_loop(name for name in found if name not in skipped)
        tally = _Tally()
        client = cluster.client(config, relay=relay, priority=priority)
        try:
            asyncio.run(_run(client, names, model, top, concurrency or "auto", shrink, log, tally))
        finally:
            failed = len(log.failed)
            if json:
                figures = {"skipped": len(skipped), "failed": failed}
                figures |= {"hidden": files.hidden, "not_images": files.others}
                print_json(tally.figures() | figures)
            elif tally.images or skipped or files.skipped():
                tally.print(len(skipped), failed, files.skipped())
    if failed:
        raise typer.Exit(1)


class _Tally:
    """Counts of what this run has done."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.images = self.errors = self.bytes = 0
        self.workers: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, result: Result) -> None:
        self.images += 1
        self.errors += result.error is not None
        self.bytes += result.image_bytes
        if result.error is None:
            self.workers[result.address] += 1
        else:
            code = result.error.code
            self.codes[code] += 1
            self.examples.setdefault(
                code, f"{printable_name(result.key)}: {with_options(result.error)}"
            )

    def figures(self) -> dict[str, Any]:
        took = max(1e-9, time.monotonic() - self.began)
        return {
            "images": self.images,
            "errors": self.errors,
            "codes": dict(self.codes),
            "seconds": round(took, 3),
            "images_per_s": round(self.images / took, 1),
            "mb_per_s": round(self.bytes / took / 1e6, 2),
            "workers": dict(self.workers),
        }

    def line(self) -> str:
        figures = self.figures()
        answered = max(1, sum(self.workers.values()))
        shares = "  ".join(
            f"{address} {count / answered:.0%}" for address, count in self.workers.most_common(4)
        )
        return (
            f"{self.images:,} images, {figures['images_per_s']:,} images/s, "
            f"{figures['mb_per_s']:,} MB/s, {self.errors:,} errors  {shares}"
        )

    def print(self, done: int, failed: int, skipped: str) -> None:
        """Print the sums, what was skipped, and an example of each kind of error."""
        before = f"; {done:,} were done before" if done else ""
        err.print(f"{self.line()}{before}; {failed:,} failed in all")
        if skipped:
            err.print(f"skipped {skipped}")
        for code, count in self.codes.most_common():
            err.print(f"{count:,} x {code}, such as {self.examples[code]}")


async def _run(
    client: Client,
    names: AsyncIterator[str],
    model: str,
    top: int,
    concurrency: Any,
    shrink: bool,
    log: ResultsLog,
    tally: _Tally,
) -> None:
    whole = WholeRun()

    def write(results: list[Result]) -> None:
        for result in results:
            log.write(result.key, _line(result))
            (log.failed.add if result.error else log.failed.discard)(result.key)
            tally.add(result)

    async with client:
        await check_model(client, model)
        results = client.stream(names, model, top=top, concurrency=concurrency, shrink=shrink)
        with err.status("") as status:
            shown = 0.0
            async with aclosing(results):
                async for result in results:
                    write(whole.add(result))
                    if time.monotonic() > shown + 0.2:
                        shown = time.monotonic()
                        status.update(tally.line())
                write(whole.rest())


def _line(result: Result) -> dict[str, Any]:
    line: dict[str, Any] = {}
    if result.error is not None:
        line["error"] = {"code": result.error.code, "message": with_options(result.error)}
    else:
        line |= {
            "predictions": result.predictions,
            "model": result.model,
            "version": result.version,
            "worker": result.address,
        }
    return line | {"attempts": result.attempts, "elapsed_s": round(result.elapsed_s, 4)}


async def _off_loop(names: Iterator[str]) -> AsyncIterator[str]:
    while (name := await asyncio.to_thread(next, names, None)) is not None:
        yield name
