"""Models that take longer than `response_timeout_s`, and queues that do, with real workers."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

from fingerpost.client import Client, ClientConfig
from tests.support.colours import encoded
from tests.support.processes import Processes
from tests.support.sleeper import Sleeper
from tests.support.waiting import until_blocking

_IMAGE = encoded("green")


def _served(processes: Processes, folder: Path, seconds: float) -> str:
    """A worker whose model takes so long for each image; the registry's URL."""
    registry = processes.registry()
    model = Sleeper(folder / "colours", seconds)
    worker = processes.worker(registry, model.folder, "--max-batch", 1)
    until_blocking(lambda: "ready at" in worker.output())
    return registry


def _images_run(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r"^fingerpost_\w*batch_size_images_sum\S* (\S+)", text, re.MULTILINE)
    assert found, text
    return int(float(found[1]))


async def test_a_model_slower_than_the_response_timeout(
    processes: Processes, tmp_path: Path
) -> None:
    registry = _served(processes, tmp_path, 2.5)
    config = ClientConfig(response_timeout_s=1.0)
    async with Client(registry=registry, config=config) as client:
        result = await client.classify(_IMAGE, "colours", timeout_s=60)
        assert (result.label, result.attempts) == ("green", 1)
        assert _images_run(result.address) == 1


async def test_a_queue_longer_than_the_response_timeout(
    processes: Processes, tmp_path: Path
) -> None:
    registry = _served(processes, tmp_path, 0.03)
    config = ClientConfig(response_timeout_s=0.5)
    async with Client(registry=registry, config=config) as client:
        calls = (client.classify(_IMAGE, "colours", timeout_s=60) for _ in range(100))
        results = await asyncio.gather(*calls)
        assert max(each.elapsed_s for each in results) > 2.5
        assert {(each.label, each.attempts) for each in results} == {("green", 1)}
        assert _images_run(results[0].address) == 100
