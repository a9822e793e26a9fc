"""Inference by a model of any task in this process, without a cluster."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import msgspec

from fingerpost.client.tasks.inference import read_inference
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.engine.outcome import OpenLabels, top_labels
from fingerpost.worker.repository.loader import EngineLoader
from fingerpost.worker.tasks.answer import TaskAnswer
from fingerpost.worker.tasks.engine import TaskEngine
from fingerpost.worker.tasks.items import AnswerOptions
from fingerpost.worker.tasks.loading import load_model
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.threads import decode_pool

if TYPE_CHECKING:
    from fingerpost.client.tasks.results import TaskResult
    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.repository.loader import LoadedModel

__all__ = ["LocalInference"]

_PLAIN = AnswerOptions()


class LocalInference:
    """A model in this process, which answers as `Client.infer` does: by a worker's engine.

    Images that are asked for at once are batched. An asynchronous context manager, which loads the
    model and frees it.

    Args:
        files: the model on disk.
        config: the device and the threads that it gets.
    """

    def __init__(self, files: ModelFiles, config: LoadConfig) -> None:
        self._files = files
        self._config = config
        self._loaded: LoadedModel | None = None
        self._leaving = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Load the model and warm it up.

        Raises:
            ConfigurationError: it cannot be loaded or run, or takes more than one image.
        """
        config = WorkerConfig()
        async with AsyncExitStack() as leaving:
            decoders = decode_pool(config.models.decode_threads)
            leaving.push_async_callback(asyncio.to_thread, decoders.shutdown, cancel_futures=True)
            load = EngineLoader(
                lambda files: load_model(files, self._config), config, decoders, WorkerMetrics()
            )
            self._loaded = await asyncio.to_thread(load, self._files)
            leaving.push_async_callback(self._loaded.engine.aclose)
            engine = self._loaded.engine
            if isinstance(engine, TaskEngine):
                inputs = engine.backend.inputs
                if len(inputs.images) != 1 or inputs.numbers:
                    names = ", ".join([*inputs.images, *inputs.numbers])
                    raise ConfigurationError(
                        f"model {self._files.name} takes several inputs ({names}), not one image"
                    )
            self._leaving = leaving.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Free the model."""
        await self._leaving.aclose()

    @property
    def task(self) -> str:
        """What the model answers."""
        return self._files.manifest.task.value

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels, in the order of its scores; empty where it has none, or open ones."""
        labels = self._model().labels
        return () if isinstance(labels, OpenLabels) else labels

    async def infer(self, image: bytes, *, top: int = 5) -> TaskResult:
        """The answer for one image.

        Args:
            image: an encoded image.
            top: most labels, of a classification or multilabel model; 0 for all.

        Raises:
            FingerpostError: as `Client.infer`, apart from what only a cluster has.
        """
        loaded = self._model()
        began = time.perf_counter()
        if isinstance(loaded.engine, TaskEngine):
            (name,) = loaded.engine.backend.inputs.images
            answer, timings = await loaded.engine.answer({name: image}, _PLAIN)
        else:
            outcome = await loaded.engine.classify(image)
            timings = outcome.timings
            answer = (
                loaded.reader.read(outcome.scores, loaded.labels, top)
                if loaded.reader is not None
                else TaskAnswer(
                    fields={"predictions": top_labels(outcome.scores, loaded.labels, top)}
                )
            )
        elapsed_s = time.perf_counter() - began
        return msgspec.structs.replace(self._typed(answer, timings), elapsed_s=elapsed_s)

    def _typed(self, answer: TaskAnswer, timings: Any) -> TaskResult:
        """The answer as a client reads it from the bytes that a worker writes."""
        members, blobs = answer.to_binary()
        head = {
            "model": self._files.name,
            "version": self._files.version,
            "task": self.task,
            "results": [{"name": "data", **members, "timings_ms": timings}],
        }
        text = msgspec.json.encode(head)
        length = str(len(text)).encode()
        return read_inference(length, b"".join((text, *blobs)), "this process").typed

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise FingerpostError("the model is not loaded: use `async with`")
        return self._loaded
