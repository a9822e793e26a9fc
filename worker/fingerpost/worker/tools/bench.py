"""How fast a model runs on this machine, by backend, batch size and threads.

Every combination of a model and a number of threads lives in a process of its own, because
frameworks settle their threads once in a process. They are measured in turn, one short turn for
each and each batch size, round after round (A B A B), so that whatever else the machine does falls
on all alike; what counts is the median of the rounds.

Only the backend runs, from decoded pixels to scores. What a worker adds to that is decoding, which
goes on beside it, and HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.tools.sample_images import sample_images

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fingerpost.worker.models.files import ModelFiles

__all__ = [
    "BATCH_SIZES",
    "BenchConfig",
    "Candidate",
    "Measurement",
    "best_latency",
    "best_throughput",
    "measure",
    "threads_worth_trying",
]

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
_ROUNDS: Final = 3
_LOAD_S: Final = 600.0
_TURN_S: Final = 120.0
"""Longest wait for one turn beyond its time: a batch of 32 on a large network and a busy CPU."""
_NEAR: Final = 0.97
"""Throughput this near to the best is as good; a smaller batch then wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What is measured, and for how long.

    Attributes:
        batch_sizes: ascending, 1 among them if latency is to be judged.
        threads: of the CPU, for each model; empty for `threads_worth_trying`.
        seconds: of measuring, in all. Loading comes on top, and a turn under way is not cut off.
            Raising it gives more rounds, so that less depends on what else the machine does.
        device: see `LoadConfig`.
    """

    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = ()
    seconds: float = 60.0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.batch_sizes or not all(1 <= size <= 4096 for size in self.batch_sizes):
            raise ConfigurationError(f"batch sizes {self.batch_sizes}: they must be 1 to 4096")
        if not 0 < self.seconds <= 86_400:
            raise ConfigurationError(f"--seconds {self.seconds}: it must be above 0, to 86400")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model with a number of threads. `load_s` is what loading and the first run took."""

    model: str
    framework: str
    device: str
    threads: int
    load_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One candidate at one batch size.

    Attributes:
        images_s: images a second, the median of the rounds.
        p50_ms, p99_ms: of one run of the batch, over all rounds.
    """

    candidate: Candidate
    batch: int
    images_s: float
    p50_ms: float
    p99_ms: float


def threads_worth_trying(cores: int) -> tuple[int, ...]:
    """One, half of the cores (where two share one physical core, that is all there is), and all."""
    return tuple(sorted({1, max(1, cores // 2), cores}))


def best_throughput(found: Sequence[Measurement]) -> Measurement:
    """The most images a second; among those within 3 % of it, the smallest batch."""
    most = max(each.images_s for each in found)
    near = [each for each in found if each.images_s >= _NEAR * most]
    return min(near, key=lambda each: (each.batch, each.p50_ms))


def best_latency(found: Sequence[Measurement]) -> Measurement:
    """The quickest answer: of the smallest batch, the one with the lowest median."""
    smallest = min(each.batch for each in found)
    return min((each for each in found if each.batch == smallest), key=lambda each: each.p50_ms)


def measure(
    models: Sequence[ModelFiles],
    config: BenchConfig,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Measure, blocking; in the order of the models, threads and batch sizes.

    A batch size that a model cannot run is left out, and `progress` says why.

    Raises:
        ConfigurationError: a model cannot be loaded, or can run none of the batch sizes.
    """
    threads = config.threads or threads_worth_trying(os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        runners = []
        for files in models:
            for count in threads:
                options = LoadConfig(device=config.device, threads=count)
                runners.append(stack.enter_context(_process(files, options)))
                facts = runners[-1].candidate
                progress(f"{facts.model}, {count} threads: loaded in {facts.load_s:.1f} s")
                if facts.device != "cpu":
                    break  # threads are the CPU's
        cells = [_Cell(runner, size) for runner in runners for size in config.batch_sizes]
        _rounds(cells, config.seconds, progress)
    found = [cell.measurement() for cell in cells if cell.rates]
    if not found:
        raise ConfigurationError("no model could run any of these batch sizes")
    return found


@dataclass(slots=True, eq=False)
class _Runner:
    """The near end of a process that runs one candidate."""

    candidate: Candidate
    pipe: Connection

    def run(self, batch: int, seconds: float) -> list[float]:
        """Seconds that each run took. Raises `ConfigurationError` where the model fails."""
        self.pipe.send((batch, seconds))
        answer: list[float] = _receive(self.pipe, self.candidate.model, seconds + _TURN_S)
        return answer


@dataclass(slots=True, eq=False)
class _Cell:
    """One line of the table to be."""

    runner: _Runner
    batch: int
    rates: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        runs = self.runner.run(self.batch, seconds)
        self.rates.append(self.batch * len(runs) / sum(runs))
        self.runs += runs

    def measurement(self) -> Measurement:
        runs = sorted(self.runs)
        return Measurement(
            candidate=self.runner.candidate,
            batch=self.batch,
            images_s=round(statistics.median(self.rates), 2),
            p50_ms=round(statistics.median(runs) * 1000, 3),
            p99_ms=round(runs[min(len(runs) - 1, int(0.99 * len(runs)))] * 1000, 3),
        )


def _rounds(cells: list[_Cell], seconds: float, progress: Callable[[str], None]) -> None:
    """One turn for each cell a round, as many rounds as fit, at least one."""
    turn_s = seconds / len(cells) / _ROUNDS
    until = time.monotonic() + seconds
    number, took_s = 0, 0.0
    while not number or time.monotonic() + took_s <= until:
        number += 1
        progress(f"round {number}")
        began = time.monotonic()
        for cell in list(cells):
            try:
                cell.turn(turn_s)
            except ConfigurationError as error:
                progress(f"batch of {cell.batch}: {error}")
                cells.remove(cell)
        took_s = time.monotonic() - began
        if not cells:
            return


@contextlib.contextmanager
def _process(files: ModelFiles, options: LoadConfig) -> Iterator[_Runner]:
    context = multiprocessing.get_context("spawn")  # frameworks do not survive a fork
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(far, files, options), daemon=True)
    process.start()
    far.close()
    try:
        yield _Runner(_receive(near, files.name, _LOAD_S), near)
    finally:
        near.close()  # which ends it, if it is not at work
        process.join(1.0)
        process.kill()
        process.join()
        process.close()


def _receive(pipe: Connection, model: str, timeout_s: float) -> Any:
    try:
        if not pipe.poll(timeout_s):
            raise ConfigurationError(f"model {model} did not answer within {timeout_s:.0f} s")
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise ConfigurationError(
            f"the process that ran model {model} died: is there memory for all the models at once?"
        ) from error
    if isinstance(answer, str):
        raise ConfigurationError(answer)
    return answer


def _serve(pipe: Connection, files: ModelFiles, options: LoadConfig) -> None:
    """The process: load, tell the candidate, then run what is asked for until the pipe closes.

    An answer that is a string says what went wrong.
    """
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        began = time.monotonic()
        try:
            backend = load_backend(files, options)
            samples = [
                prepare(data, backend.input, ImageConfig()) for data in sample_images(8, seed=1)
            ]
            backend.predict(samples[:1])
        except FingerpostError as error:
            pipe.send(str(error))
            return
        except Exception as error:  # the model's own, of any kind
            pipe.send(f"model {files.name} fails on an image: {error}"[:500])
            return
        pipe.send(
            Candidate(
                model=f"{files.name}@{files.version}",
                framework=backend.framework,
                device=backend.device,
                threads=options.threads,
                load_s=round(time.monotonic() - began, 2),
            )
        )
        warm: set[int] = set()
        while True:
            batch, seconds = pipe.recv()
            images = [samples[index % len(samples)] for index in range(batch)]
            try:
                if batch not in warm:  # a shape's first run plans memory and chooses kernels
                    backend.predict(images)
                    warm.add(batch)
                pipe.send(_run(functools.partial(backend.predict, images), seconds))
            except Exception as error:  # as above
                pipe.send(f"model {files.name} cannot run it: {error}"[:500])


def _run(call: Callable[[], object], seconds: float) -> list[float]:
    runs: list[float] = []
    until = time.perf_counter() + seconds
    while not runs or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        runs.append(time.perf_counter() - began)
    return runs
