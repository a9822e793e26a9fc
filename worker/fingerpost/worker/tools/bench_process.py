"""The process in which `bench` runs one candidate: a model with a number of threads."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import FingerpostError, ImageError
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.tools.sample_images import sample_images

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fingerpost.worker.backends.base import Backend, LoadConfig
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["Candidate", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model with a number of threads.

    Attributes:
        model: name and version.
        framework: name and version.
        device: where it runs.
        threads: CPU threads; 0 is the framework's choice.
        load_s: seconds for loading and the first run.
        agreement: share of the images with the same best class as by the first candidate, 0 to 1.
        setting: what `model.toml` must say for this runtime; empty for the model as it is.
    """

    model: str
    framework: str
    device: str
    threads: int
    load_s: float
    agreement: float = 1.0
    setting: str = ""


def serve(
    pipe: Connection, files: ModelFiles, options: LoadConfig, images: tuple[bytes, ...]
) -> None:
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
            best = _best_labels(files, backend, images)
        except FingerpostError as error:
            pipe.send(str(error))
            return
        except Exception as error:  # of any kind, from the model
            pipe.send(f"model {files.name} fails on an image: {error}"[:500])
            return
        candidate = Candidate(
            model=f"{files.name}@{files.version}",
            framework=backend.framework,
            device=backend.device,
            threads=options.threads,
            load_s=round(time.monotonic() - began, 2),
        )
        pipe.send((candidate, best))
        warm: set[int] = set()
        while True:
            batch, seconds = pipe.recv()
            items = [samples[index % len(samples)] for index in range(batch)]
            try:
                if batch not in warm:  # a shape's first run plans memory and chooses kernels
                    backend.predict(items)
                    warm.add(batch)
                pipe.send(_run(functools.partial(backend.predict, items), seconds))
            except Exception as error:  # as above
                pipe.send(f"model {files.name} cannot run it: {error}"[:500])


def _best_labels(files: ModelFiles, backend: Backend, images: Sequence[bytes]) -> list[str]:
    best = []
    for data in images:
        try:
            item = prepare(data, backend.input, ImageConfig())
        except ImageError:
            best.append("")
            continue
        index = int(backend.predict([item])[0].argmax())
        best.append(files.labels[index] if index < len(files.labels) else str(index))
    return best


def _run(call: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    runs: list[float] = []
    cpu = time.process_time()
    until = time.perf_counter() + seconds
    while not runs or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        runs.append(time.perf_counter() - began)
    return runs, time.process_time() - cpu
