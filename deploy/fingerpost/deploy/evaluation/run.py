"""Sends every image once, and counts the answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fingerpost.deploy.file_names import printable_name
from fingerpost.deploy.load_test.measuring.histogram import Histogram
from fingerpost.deploy.setting_names import with_options
from fingerpost.deploy.whole_run import OF_ALL_IMAGES
from fingerpost.errors import FingerpostError, PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fingerpost.client.tasks.results import TaskResult

__all__ = ["FailedImage", "Run", "Target", "send_all"]

# So many failed images with no answer among them are a fault of the cluster, not of the images.
_FIRST: Final = 20


class Target(Protocol):
    """A model, in this process or of a cluster."""

    async def infer(self, path: str, *, top: int) -> TaskResult:
        """The answer for an image file, and its `elapsed_s`. Raises `FingerpostError`."""
        ...


class FailedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image without an answer that counts: its path, and the error's code and message."""

    image: str
    code: str
    message: str

    @classmethod
    def of(cls, path: str, error: FingerpostError) -> FailedImage:
        """The failure of a file."""
        return cls(image=printable_name(path), code=error.code, message=with_options(error))


@dataclass(slots=True, kw_only=True)
class Run:
    """What came of sending the images.

    Attributes:
        answered: how many have an answer that counts.
        failed: those that have none, in the order of their paths.
        seconds: from the first request to the last answer.
        latency: of each answered image, from its request to its answer.
        versions, workers: how many images each answered; a model in this process has no worker.
    """

    answered: int = 0
    failed: list[FailedImage] = field(default_factory=list)
    seconds: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    versions: Counter[str] = field(default_factory=Counter)
    workers: Counter[str] = field(default_factory=Counter)


async def send_all(
    target: Target,
    paths: Sequence[str],
    count: Callable[[int, TaskResult], None],
    *,
    top: int,
    concurrency: int,
    in_thread: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Ask for each image once, `concurrency` at a time.

    Args:
        target: the model.
        paths: the images.
        count: gets the place of an image in `paths` and its answer; what it raises as
            `FingerpostError` is a failure of that image.
        top: most labels in an answer.
        concurrency: images in flight.
        in_thread: call `count` in a thread, one at a time: where it takes so long that other
            answers would wait for it, and their latency would be wrong.
        progress: called with the number of images done.

    Raises:
        FingerpostError: one that all images would get; or the first 20 all failed in the cluster.
    """
    run = Run()
    failed: dict[int, FailedImage] = {}
    waiting = iter(enumerate(paths))
    counting = asyncio.Lock()
    began = time.monotonic()

    async def work() -> None:
        for place, path in waiting:
            try:
                answer = await target.infer(path, top=top)
                if in_thread:
                    async with counting:
                        await asyncio.to_thread(count, place, answer)
                else:
                    count(place, answer)
            except OF_ALL_IMAGES:
                raise
            except FingerpostError as error:
                failed[place] = FailedImage.of(path, error)
                if isinstance(error, PeerError) and len(failed) >= _FIRST and not run.answered:
                    raise PeerError(
                        f"the first {len(failed)} images failed, so that no other one is sent; the "
                        f"last one: {error.message}"
                    ) from error
            else:
                run.answered += 1
                run.latency.record(answer.elapsed_s)
                run.versions[answer.version] += 1
                if answer.address:
                    run.workers[answer.address] += 1
            progress(run.answered + len(failed))

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(paths)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    run.seconds = time.monotonic() - began
    run.failed = [failed[place] for place in sorted(failed)]
    return run
