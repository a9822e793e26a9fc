"""What a worker says that it can do at once."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.worker import Worker
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
        assert (await response.json())["slots"] == slots
