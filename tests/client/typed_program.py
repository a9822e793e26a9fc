"""A user's program, which only type checkers read: see test_types.py.

They also complain of a `type: ignore` where there is nothing wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import assert_type

from torch.utils.data import DataLoader

from fingerpost.client import (
    Client,
    ClientConfig,
    ClientMetrics,
    Concurrency,
    FingerpostError,
    ImageSource,
    OnError,
    Prediction,
    RegistryConfig,
    Result,
    RetryConfig,
    RoutingConfig,
    Snapshot,
    Stats,
    SyncClient,
    Tracing,
)
from fingerpost.client.adapters.batch import BatchMapper
from fingerpost.client.adapters.torch import (
    Classified,
    ClassifiedDataset,
    ClassifiedIterableDataset,
)


async def pairs() -> AsyncIterator[tuple[int, bytes]]:
    """Keys and images."""
    yield 1, b"image"


async def asynchronous() -> str:
    """All of `Client`."""
    config = ClientConfig(hedge=True, routing=RoutingConfig(retries=RetryConfig(max_attempts=2)))
    async with Client("http://proxy:12480", config=config, tracing=Tracing()) as client:
        ClientMetrics(client)
        try:
            found = assert_type(await client.classify(Path("a.jpg"), "flowers@3"), Result)
        except FingerpostError as error:
            return error.code
        await client.classify(b"image", "flowers", top=3, timeout_s=5, shrink=True, sticky="camera")
        await client.classify(3.5, "flowers")  # type: ignore[arg-type]
        async with aclosing(client.stream(pairs(), "flowers", ordered=True)) as results:
            async for result in results:
                assert_type(result.score, float)
        async for result in client.stream(["a.jpg", b"image"], "flowers", concurrency=8):
            assert_type(result.error, FingerpostError | None)
        client.stream([], "flowers", on_error="ignore")  # type: ignore[arg-type]
        assert_type(client.stats, Stats)
        return found.label


def synchronous(source: str | list[str], image: ImageSource) -> Iterator[str]:
    """All of `SyncClient`."""
    how_many: Concurrency = "auto"
    on_error: OnError = "raise"
    with SyncClient(source, registry_config=RegistryConfig(token_file="token")) as client:  # noqa: S106
        ClientMetrics(client)
        assert_type(client.services(), tuple[str, ...])
        assert_type(client.resolve("flowers"), Snapshot)
        found = client.classify(image, model="flowers")
        assert_type(found.predictions, tuple[Prediction, ...])
        label, score = found.predictions[0]
        assert_type(score, float)
        yield label
        for result in client.stream(
            [(1, "a.jpg"), (2, b"image")], "flowers", concurrency=how_many, on_error=on_error
        ):
            yield result.key
    SyncClient("http://proxy-1:12480", "http://proxy-2:12480").close()
    SyncClient(registry="consul://127.0.0.1:8500").close()
    SyncClient(12480)  # type: ignore[arg-type]
    ClientConfig(silence_s=1.0)  # type: ignore[call-arg]


def adapters(client: SyncClient) -> None:
    """In other frameworks."""
    BatchMapper(client, "flowers", column="path", timeout_s=5, on_error="raise")({"path": []})
    BatchMapper(client, "flowers", concurrency="many")  # type: ignore[arg-type]
    dataset: ClassifiedDataset[bytes] = ClassifiedDataset([b""], client, "flowers", shrink=True)
    assert_type(dataset[0], Classified[bytes])
    assert_type(dataset[0].item, bytes)
    DataLoader(dataset, batch_size=8)
    ClassifiedIterableDataset[str](["a.jpg"], client, "flowers", image=Path)


asyncio.run(asynchronous())
