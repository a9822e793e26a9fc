"""A worker process that has started already, and takes a port at once when it is told to.

A worker that is started when another one is killed needs some seconds for Python and its model. By
then everybody knows that the other one is gone. This one needs some milliseconds:

    python -m tests.support.standby FOLDER REGISTRY CHECK PORT NAME VERSION

It binds PORT when FOLDER/bind is there, says `listening`, and registers when FOLDER/register is.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import numpy as np

from fingerpost.basics.shutdown import ShutdownSignals
from fingerpost.registry import RegistryConfig
from fingerpost.registry.config import CheckConfig
from fingerpost.worker import Worker, WorkerConfig
from tests.support.colours import LABELS, SIDE


class Colours:
    """Tells red, green and blue apart by the mean of each channel."""

    height = width = SIDE
    labels = LABELS

    def predict(self, batch: np.ndarray) -> np.ndarray:
        means = batch.mean(axis=(1, 2)) + 1e-6
        return (means / means.sum(axis=1, keepdims=True)).astype(np.float32)


async def _until(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.005)


async def main(folder: Path, registry: str, check: str, port: int, name: str, version: str) -> None:
    config = WorkerConfig(
        registry=registry,
        registry_config=RegistryConfig(check=CheckConfig(mode=check)),  # type: ignore[arg-type]
        port=port,
    )
    worker = Worker.for_object(Colours(), name=name, version=version, config=config)
    logging.info("standing by")
    await _until(folder / "bind")
    async with worker:
        logging.info("listening")
        signals = ShutdownSignals()
        await _until(folder / "register")
        await worker.register()
        await signals.wait()
        await worker.leave()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    where, at, mode, port, *model = sys.argv[1:]
    asyncio.run(main(Path(where), at, mode, int(port), *model))
