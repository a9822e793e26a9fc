"""How a worker comes into a registry: it waits for it, and clears what the dead left there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry import Instance, ModelInfo, RegistryConfig, open_registry
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import DrainConfig, LeasesConfig, RegistrationConfig, WorkerConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.worker import Worker
from tests.support.colours import Models
from tests.support.ports import free_port
from tests.support.waiting import until


@pytest.fixture
async def registry_url() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


def make(models: Models, registry_url: str, **settings: Any) -> Worker:
    config = WorkerConfig(registry=registry_url, drain=DrainConfig(lease_s=0.0), **settings)
    files = find_model(models.saved_model)
    return Worker(files, lambda files: load_backend(files, LoadConfig()), config)


@pytest.fixture
async def worker(models: Models, registry_url: str) -> AsyncIterator[Worker]:
    async with make(models, registry_url) as worker:
        await worker.register()
        yield worker


async def test_a_worker_waits_for_its_registry(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = free_port()
    starting = asyncio.create_task(_register(make(models, f"http://127.0.0.1:{port}")))
    await until(lambda: "waiting for the registry" in caplog.text, "it says so")
    assert f"127.0.0.1:{port}" in caplog.text
    await asyncio.sleep(1.5)  # some tries later
    assert caplog.text.count("waiting for the registry") == 1, "one line in 5 s"
    async with EmbeddedRegistry(port=port):
        await starting
    assert "the registry answers" in caplog.text


async def test_a_registry_that_goes_while_the_models_load_is_waited_for(models: Models) -> None:
    embedded = await EmbeddedRegistry(port=0).start()
    patient = RegistrationConfig(timeout_s=0.1)
    async with make(models, embedded.url, registration=patient) as worker:
        await embedded.aclose()
        registering = asyncio.create_task(worker.register())
        await asyncio.sleep(1.0)
        assert not registering.done()
        async with EmbeddedRegistry(port=embedded.port):
            await registering
            await worker.leave()


async def _register(worker: Worker) -> None:
    async with worker:
        await worker.register()
        await worker.leave()


@pytest.mark.parametrize("mode", ["http", "ttl"])
async def test_a_worker_removes_the_entries_of_a_dead_one_at_its_address(
    models: Models, registry_url: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = RegistryConfig(check=CheckConfig(mode=mode))  # type: ignore[arg-type]
    dead = open_registry(registry_url, config)
    port = free_port()
    for name in ("flowers", "colours"):
        ghost = Instance(
            id=f"{name}-127.0.0.1-{port}-dead",
            service=name,
            host="127.0.0.1",
            ports={"http": port},
            models=(ModelInfo(name=name, versions=("6",)),),
            boot_id=7,
        )
        await dead.register(ghost)
    await dead.aclose()
    caplog.set_level(logging.INFO)
    reader = open_registry(registry_url)
    async with make(models, registry_url, port=port, registry_config=config) as worker:
        await worker.register()
        assert not (await reader.list("flowers")).known
        assert [each.id for each in (await reader.list("colours")).instances] == [
            worker.instance.id
        ]
        assert caplog.text.count("removed the entry") == 2
    await reader.aclose()


async def test_an_address_at_which_another_process_answers_removes_nothing_and_is_told(
    models: Models, registry_url: str, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    port = worker.instance.ports["http"]
    wrong = RegistrationConfig(advertise="127.0.0.1")
    async with make(models, registry_url, host="127.0.0.2", port=port, registration=wrong) as other:
        await other.register()
        assert f"another process answers at 127.0.0.1:{port}" in caplog.text
        assert "--advertise" in caplog.text
        registry = open_registry(registry_url)
        listed = {each.id for each in (await registry.list("colours")).instances}
        assert worker.instance.id in listed
        await registry.aclose()


async def test_the_check_is_of_the_process_that_the_entry_names(
    worker: Worker,
) -> None:
    boot_id = worker.instance.boot_id
    http = aiohttp.ClientSession(worker.instance.url)
    for query, status in [("", 200), (f"?boot_id={boot_id}", 200), ("?boot_id=7", 410)]:
        async with http.get(f"/health/engine{query}") as response:
            assert response.status == status, query
    async with http.get("/health/engine?boot_id=7") as response:
        assert await response.json() == {"status": "another process", "boot_id": boot_id}
    await http.close()


class Loaded:
    """A model that notes that it was loaded, which takes minutes for a large one."""

    height = width = 8

    def __init__(self) -> None:
        self.loaded = False

    def load(self) -> None:
        self.loaded = True

    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.ones((len(images), 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"leases": LeasesConfig(required=True, keys_file=Path("missing"))},
        {"callers": CallersConfig(policy="missing")},
    ],
    ids=["lease keys", "policy"],
)
async def test_a_file_that_is_wrong_is_told_before_a_model_is_loaded(
    registry_url: str, settings: dict[str, Any]
) -> None:
    model = Loaded()
    config = WorkerConfig(registry=registry_url, **settings)
    with pytest.raises(ConfigurationError, match="missing"):
        async with Worker.for_object(model, name="slow", config=config):
            pass
    assert not model.loaded
    async with Worker.for_object(model, name="slow", config=WorkerConfig(registry=registry_url)):
        assert model.loaded
