"""What a worker says that it can do at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec
import pytest

from fingerpost.registry import LoadReport
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.worker import Worker
from tests.support.colours import encoded
from tests.support.repository import write_version


@pytest.mark.parametrize(
    ("batch", "slots"), [("", 32), ("[batch]\nmax = 1\n", 1), ("[batch]\nsizes = [1, 2, 4]\n", 4)]
)
async def test_slots_are_those_of_the_model_not_of_the_options(
    batch: str, slots: int, tmp_path: Path, registry_url: str
) -> None:
    folder = write_version(tmp_path / "flowers", 1)
    settings = folder / "model.toml"
    settings.write_text(settings.read_text() + batch)
    files = find_model(folder)
    config = WorkerConfig(registry=registry_url)
    async with (
        Worker(files, lambda files: load_backend(files, LoadConfig()), config) as worker,
        aiohttp.ClientSession(worker.instance.url) as http,
        http.get("/load") as response,
    ):
        assert 1 <= (await response.json())["slots"] <= slots  # as its warm-up measured


SLEEPER = """
import time

import numpy as np


class Sleeper:
    encoded = True

    def __init__(self, folder):
        self.scores = np.zeros((32, 1), np.float32)

    def predict(self, batch):
        time.sleep({line})
        return self.scores[: len(batch)]
"""


@pytest.mark.parametrize(
    ("line", "least", "most"),
    [("0.05 * len(batch)", 1, 1), ("0.05", 4, 32)],
    ids=["linear", "flat"],
)
async def test_a_worker_measures_what_it_can_do_at_once(
    line: str, least: int, most: int, tmp_path: Path, registry_url: str
) -> None:
    """With default options: 50 ms an image, or 50 ms a batch; 24 images, then nine at once."""
    folder = tmp_path / "sleeper" / "1"
    folder.mkdir(parents=True)
    (folder / "sleeper.py").write_text(SLEEPER.format(line=line))
    (folder / "model.toml").write_text('framework = "python"\nclass = "sleeper:Sleeper"\n')
    async with (
        Worker(
            find_model(folder),
            lambda files: load_backend(files, LoadConfig()),
            WorkerConfig(registry=registry_url),
        ) as worker,
        aiohttp.ClientSession(worker.instance.url) as http,
    ):

        async def load() -> LoadReport:
            async with http.get("/load") as response:
                return msgspec.json.decode(await response.read(), type=LoadReport)

        async def classify() -> None:
            async with http.post("/", data=encoded("red")) as response:
                assert response.status == 200

        first = await load()  # its warm-up was measured
        assert first.expected_s == first.alone_s == pytest.approx(0.05, rel=0.5)
        for at_once in (1, 2, 1, 6, 1, 9, 1, 3):
            await asyncio.gather(*(classify() for _ in range(at_once)))
        idle = await load()
        assert least <= idle.slots <= most
        assert idle.expected_s == idle.alone_s == pytest.approx(0.05, rel=0.3)
        sent = [asyncio.create_task(classify()) for _ in range(9)]
        busy = await load()
        while busy.rif < 9:
            busy = await load()
        waits = busy.expected_s / busy.alone_s - 1
        await asyncio.gather(*sent)
        if most == 1:
            assert 5 < waits < 11
        else:
            assert waits < 4
