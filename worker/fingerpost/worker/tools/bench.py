"""How fast a model runs on this machine, by backend, batch size and threads.

Every combination of a model and a number of threads runs in a process of its own, because
frameworks set their threads once per process. They are measured in turn, one short turn for each
batch size of each, round after round and every second one backwards (A B B A), so that other load
on the machine affects all alike; the median of the rounds counts.

Each also classifies the same images, which shows how often it agrees with the first.

Only the backend is measured, from decoded pixels to scores. A worker also decodes, in parallel, and
speaks HTTP.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.models.formats import frameworks_of
from fingerpost.worker.models.manifest import Framework
from fingerpost.worker.tools.bench_process import Candidate, serve
from fingerpost.worker.tools.sample_images import sample_images

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fingerpost.worker.models.files import ModelFiles

__all__ = [
    "BATCH_SIZES",
    "BenchConfig",
    "Candidate",
    "Measurement",
    "accurate",
    "best_latency",
    "best_throughput",
    "measure",
    "readings",
    "threads_worth_trying",
]

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
_IMAGES: Final = 16
# Those that run files which others run, too.
_PACKAGES: Final = {
    Framework.ONNX: "onnxruntime",
    Framework.OPENVINO: "openvino",
    Framework.LITERT: "ai_edge_litert",
}
_ROUNDS: Final = 6
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
        images: encoded images that all models classify, to see how often they agree. More of them
            make the agreement more exact, and loading longer. Some generated ones by default.
    """

    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = ()
    seconds: float = 60.0
    device: str = "auto"
    images: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not self.batch_sizes or not all(1 <= size <= 4096 for size in self.batch_sizes):
            raise ConfigurationError(f"batch_sizes is {self.batch_sizes}: each must be 1 to 4096")
        if not 0 < self.seconds <= 86_400:
            raise ConfigurationError(
                f"seconds is {self.seconds}: it must be above 0 and at most 86400"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The speed of one candidate at one batch size.

    Attributes:
        candidate: the model with its threads.
        batch: images in one batch.
        images_s: images per second, the median of the rounds.
        p50_ms, p99_ms: milliseconds for one batch, over all rounds.
        cpu_ms: milliseconds of processor time for an image, all threads together, the median of the
            rounds. It hardly depends on other load, and is what a worker cannot decode in.
    """

    candidate: Candidate
    batch: int
    images_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float = 0.0


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


def readings(files: ModelFiles) -> list[ModelFiles]:
    """The model itself, and as other runtimes would run its file that are installed here."""
    found = [files]
    for framework in frameworks_of(files.path):
        own = framework is files.manifest.framework
        if not own and importlib.util.find_spec(_PACKAGES[framework]):
            manifest = msgspec.structs.replace(
                files.manifest,
                framework=framework,
                runtime=files.manifest.runtime.fit(framework),
            )
            found.append(replace(files, manifest=manifest))
    return found


def accurate(found: Sequence[Measurement], agreement: float) -> list[Measurement]:
    """Those that agree with the first candidate on that share of the images, or more."""
    return [each for each in found if each.candidate.agreement >= agreement]


def measure(
    models: Sequence[ModelFiles],
    config: BenchConfig,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Measure; blocks. The results are in the order of the models, threads and batch sizes.

    A batch size that a model cannot run is left out, and `progress` gets the reason. So is a
    runtime that does not read a model's file, where it is not the model's own.

    Raises:
        ConfigurationError: a model cannot be loaded, or can run none of the batch sizes.
    """
    threads = config.threads or threads_worth_trying(os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        images = config.images or tuple(sample_images(_IMAGES, seed=2))
        runners: list[_Runner] = []
        for files in [each for model in models for each in readings(model)]:
            for count in threads:
                options = LoadConfig(device=config.device, threads=count)
                try:
                    runner = stack.enter_context(_process(files, options, images))
                except ConfigurationError as error:
                    if files in models:
                        raise
                    progress(f"{files.name} by {files.manifest.framework.value}: {error}")
                    break
                if files not in models:
                    setting = f'framework = "{files.manifest.framework.value}"'
                    runner.candidate = replace(runner.candidate, setting=setting)
                runners.append(_compared(runner, runners))
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
    """A process that runs one candidate, as its parent sees it.

    `best` is the best label of each image, empty for one that cannot be decoded.
    """

    candidate: Candidate
    pipe: Connection
    best: list[str]

    def run(self, batch: int, seconds: float) -> tuple[list[float], float]:
        """The seconds of each run, and of processor time in all.

        Raises:
            ConfigurationError: the model fails.
        """
        self.pipe.send((batch, seconds))
        answer: tuple[list[float], float] = _receive(
            self.pipe, self.candidate.model, seconds + _TURN_S
        )
        return answer


@dataclass(slots=True, eq=False)
class _Series:
    """The measurements of one candidate at one batch size."""

    runner: _Runner
    batch: int
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        runs, cpu_s = self.runner.run(self.batch, seconds)
        self.rates.append(self.batch * len(runs) / sum(runs))
        self.costs.append(cpu_s / (self.batch * len(runs)))
        self.runs += runs

    def measurement(self) -> Measurement:
        runs = sorted(self.runs)
        return Measurement(
            candidate=self.runner.candidate,
            batch=self.batch,
            images_s=round(statistics.median(self.rates), 2),
            p50_ms=round(statistics.median(runs) * 1000, 3),
            p99_ms=round(runs[min(len(runs) - 1, int(0.99 * len(runs)))] * 1000, 3),
            cpu_ms=round(statistics.median(self.costs) * 1000, 3),
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
        for each in series[:: 1 if number % 2 else -1]:
            try:
                each.turn(turn_s)
            except ConfigurationError as error:
                progress(f"batch of {each.batch}: {error}")
                series.remove(each)
        took_s = time.monotonic() - began
        if not series:
            return


@contextlib.contextmanager
def _process(
    files: ModelFiles, options: LoadConfig, images: tuple[bytes, ...]
) -> Iterator[_Runner]:
    context = multiprocessing.get_context("spawn")  # frameworks do not survive a fork
    pipes: tuple[Any, Any] = context.Pipe()
    near, far = pipes
    process = context.Process(target=serve, args=(far, files, options, images), daemon=True)
    process.start()
    far.close()
    try:
        candidate, best = _receive(near, files.name, _LOAD_S)
        yield _Runner(candidate, near, best)
    finally:
        near.close()  # which ends the process, if it is idle
        process.join(1.0)
        process.kill()
        process.join()
        process.close()


def _compared(runner: _Runner, others: Sequence[_Runner]) -> _Runner:
    """The runner, whose candidate says how often it agrees with the first of the others."""
    if others and runner.best:
        pairs = list(zip(others[0].best, runner.best, strict=True))
        agreement = sum(first == second for first, second in pairs) / len(pairs)
        runner.candidate = replace(runner.candidate, agreement=round(agreement, 4))
    return runner


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
