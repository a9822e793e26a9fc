"""How fast a model runs on this machine, by backend, batch size and threads.

Every combination of a model and a number of threads runs in a process of its own, because
frameworks set their threads once per process. They are measured in turn, one short turn for each
batch size of each, round after round (A B A B), so that other load on the machine affects all
alike; the median of the rounds counts.

Only the backend is measured, from decoded pixels to scores. A worker also decodes, in parallel, and
speaks HTTP.
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
"""Throughput within this share of the best counts as equal; then the smaller batch wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What is measured, and for how long.

    Attributes:
        batch_sizes: the batch sizes, 1 to 4096, ascending; 1 must be among them for the figures of
            latency. More sizes make each turn shorter; the default covers small machines.
        threads: numbers of CPU threads to try for each model. More of them make each turn shorter;
            empty, the default, is `threads_worth_trying`.
        seconds: seconds of measuring in all, up to a day. Loading comes on top, and a turn that has
            started is not cut off. Raising it gives more rounds, so that other load on the machine
            matters less. 60 s is some rounds of two models with six batch sizes.
        device: see `LoadConfig`.
    """

    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = ()
    seconds: float = 60.0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.batch_sizes or not all(1 <= size <= 4096 for size in self.batch_sizes):
            raise ConfigurationError(f"batch_sizes is {self.batch_sizes}: each must be 1 to 4096")
        if not 0 < self.seconds <= 86_400:
            raise ConfigurationError(
                f"seconds is {self.seconds}: it must be above 0 and at most 86400"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model with a number of threads.

    Attributes:
        model: name and version.
        framework: name and version.
        device: where it runs.
        threads: CPU threads; 0 is the framework's choice.
        load_s: seconds for loading and the first run.
    """

    model: str
    framework: str
    device: str
    threads: int
    load_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The speed of one candidate at one batch size.

    Attributes:
        candidate: the model with its threads.
        batch: images in one batch.
        images_s: images per second, the median of the rounds.
        p50_ms, p99_ms: milliseconds for one batch, over all rounds.
    """

    candidate: Candidate
    batch: int
    images_s: float
    p50_ms: float
    p99_ms: float


def threads_worth_trying(cores: int) -> tuple[int, ...]:
    """One, half of the cores (all physical cores where two share one), and all cores."""
    return tuple(sorted({1, max(1, cores // 2), cores}))


def best_throughput(found: Sequence[Measurement]) -> Measurement:
    """The highest throughput; among measurements within 3 % of it, the smallest batch."""
    most = max(each.images_s for each in found)
    near = [each for each in found if each.images_s >= _NEAR * most]
    return min(near, key=lambda each: (each.batch, each.p50_ms))


def best_latency(found: Sequence[Measurement]) -> Measurement:
    """The lowest latency: the lowest median among the measurements of the smallest batch."""
    smallest = min(each.batch for each in found)
    return min((each for each in found if each.batch == smallest), key=lambda each: each.p50_ms)


def measure(
    models: Sequence[ModelFiles],
    config: BenchConfig,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Measure; blocks. The results are in the order of the models, threads and batch sizes.

    A batch size that a model cannot run is left out, and `progress` gets the reason.

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
        series = [_Series(runner, size) for runner in runners for size in config.batch_sizes]
        _rounds(series, config.seconds, progress)
    found = [each.measurement() for each in series if each.rates]
    if not found:
        raise ConfigurationError("no model could run any of these batch sizes")
    return found


@dataclass(slots=True, eq=False)
class _Runner:
    """A process that runs one candidate, as its parent sees it."""

    candidate: Candidate
    pipe: Connection

    def run(self, batch: int, seconds: float) -> list[float]:
        """The seconds of each run. Raises `ConfigurationError` where the model fails."""
        self.pipe.send((batch, seconds))
        answer: list[float] = _receive(self.pipe, self.candidate.model, seconds + _TURN_S)
        return answer


@dataclass(slots=True, eq=False)
class _Series:
    """The measurements of one candidate at one batch size."""

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


def _rounds(series: list[_Series], seconds: float, progress: Callable[[str], None]) -> None:
    """Run one turn of each series per round, and as many rounds as fit, at least one."""
    turn_s = seconds / len(series) / _ROUNDS
    until = time.monotonic() + seconds
    number, took_s = 0, 0.0
    while not number or time.monotonic() + took_s <= until:
        number += 1
        progress(f"round {number}")
        began = time.monotonic()
        for each in list(series):
            try:
                each.turn(turn_s)
            except ConfigurationError as error:
                progress(f"batch of {each.batch}: {error}")
                series.remove(each)
        took_s = time.monotonic() - began
        if not series:
            return


@contextlib.contextmanager
def _process(files: ModelFiles, options: LoadConfig) -> Iterator[_Runner]:
    context = multiprocessing.get_context("spawn")  # frameworks do not survive a fork
    pipes: tuple[Any, Any] = context.Pipe()
    near, far = pipes
    process = context.Process(target=_serve, args=(far, files, options), daemon=True)
    process.start()
    far.close()
    try:
        yield _Runner(_receive(near, files.name, _LOAD_S), near)
    finally:
        near.close()  # which ends the process, if it is idle
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
            f"the process that ran model {model} died: is there enough memory for all the models?"
        ) from error
    if isinstance(answer, str):
        raise ConfigurationError(answer)
    return answer


def _serve(pipe: Connection, files: ModelFiles, options: LoadConfig) -> None:
    """The main function of the process: load, send the candidate, then run batches on request.

    It ends when the pipe closes. An answer that is a string is an error message.
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
        except Exception as error:  # of any kind, from the model
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
