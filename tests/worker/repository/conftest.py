"""A worker over a folder of models, and the embedded registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fingerpost.registry.access import CallersConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.config import DrainConfig, ModelsConfig, WorkerConfig
from fingerpost.worker.repository.sources import ModelFolder, ModelRoot, ModelSource
from fingerpost.worker.repository.versions.policy import VersionPolicy
from fingerpost.worker.worker import Worker
from tests.support.repository import TOKEN


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    """Every asynchronous test here leaves no task behind."""
    if asyncio.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_task_left")


@pytest.fixture
async def registry_url() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


Serve = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def serve(registry_url: str) -> AsyncIterator[Serve]:
    """`await serve(folder)` starts a worker over `models`, `await serve(folder, alone=True)` over
    one model's versions, and `await serve(source)` over any other source."""
    async with AsyncExitStack() as stack:

        async def start(
            folder: Path | ModelSource,
            *,
            alone: bool = False,
            policy: str = "latest:1",
            only: tuple[str, ...] = (),
            lease_s: float = 0.1,
            admin_token: str | None = TOKEN,
            callers: CallersConfig | None = None,
        ) -> Worker:
            chosen = VersionPolicy.parse(policy)
            config = WorkerConfig(
                registry=registry_url,
                drain=DrainConfig(lease_s=lease_s),
                models=ModelsConfig(poll_s=0.05, admin_token=admin_token),
                callers=callers or CallersConfig(),
            )
            if not isinstance(folder, Path):
                source = folder
            elif alone:
                source = ModelFolder(folder, policy=chosen)
            else:
                source = ModelRoot(folder, policy=chosen, only=only)
            worker = Worker(source, lambda files: load_backend(files, LoadConfig()), config)
            await stack.enter_async_context(worker)
            await worker.register()
            return worker

        yield start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


Ask = Callable[..., Awaitable[tuple[str, str]]]


@pytest.fixture
def ask(http: aiohttp.ClientSession) -> Ask:
    """`await ask(worker, "flowers@3")`: the version that answered, and the label it gave."""

    async def ask(worker: Worker, model: str, image: bytes = b"image") -> tuple[str, str]:
        url = f"{worker.instance.url}/v1/classify/{model}"
        async with http.post(url, data=image) as response:
            body = await response.json()
            if response.status != 200:
                return str(response.status), body["error"]["code"]
            return body["version"], body["results"][0]["predictions"][0][0]

    return ask


Order = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture
def order(http: aiohttp.ClientSession) -> Order:
    """`await order(worker, "POST", "flowers/rollback")`: the status and the answer."""

    async def order(
        worker: Worker, method: str, path: str, *, token: str = TOKEN, **arguments: Any
    ) -> tuple[int, dict[str, Any]]:
        url = f"{worker.instance.url}/v1/admin/models{'/' if path else ''}{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with http.request(method, url, headers=headers, **arguments) as response:
            return response.status, await response.json()

    return order
