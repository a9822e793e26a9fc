"""A real worker service around a model's folder, loaded as a worker loads it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.registry import WorkerState
from fingerpost.registry.http.app import bind, serve
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.repository.loader import EngineLoader, LoadedModel
from fingerpost.worker.repository.manager import ServedVersion
from fingerpost.worker.service import WorkerService
from fingerpost.worker.tasks.loading import load_model
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.threads import decode_pool
from tests.support.single_model import SingleModel


@dataclass
class TaskRig:
    url: str
    port: int
    served: ServedVersion
    meta: dict[str, str]


def load(folder: Path, config: WorkerConfig | None = None) -> LoadedModel:
    config = config or WorkerConfig(registry="http://127.0.0.1:9")
    loader = EngineLoader(
        lambda files: load_model(files, LoadConfig(device="cpu")),
        config,
        decode_pool(2),
        WorkerMetrics(),
    )
    return loader(find_model(folder))


@contextlib.asynccontextmanager
async def serving_folder(
    folder: Path, name: str = "model", **settings: Any
) -> AsyncIterator[TaskRig]:
    """Serve the model in a folder as `name`, version 1."""
    settings = {"images": ImageConfig(max_bytes=2_000_000), **settings}
    config = WorkerConfig(registry="http://127.0.0.1:9", **settings)
    loaded = await asyncio.to_thread(load, folder, config)
    served = ServedVersion(
        model=name,
        version="1",
        labels=loaded.labels,
        engine=loaded.engine,
        task=loaded.task,
        reader=loaded.reader,
    )
    service = WorkerService(SingleModel(served), boot_id=1, config=config, metrics=WorkerMetrics())
    runner = service.runner()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    await runner.setup()
    await serve(runner, listener)
    service.admission.state = WorkerState.READY
    try:
        yield TaskRig(f"http://127.0.0.1:{port}", port, served, loaded.meta)
    finally:
        await runner.cleanup()
        await loaded.engine.aclose()
