"""`client.infer` through a real worker, by both clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from tests.support.colours import SIDE
from tests.support.row_models import expected, write_row_model
from tests.support.task_rig import serving_folder

from fingerpost.client import (
    Classification,
    Client,
    ClientConfig,
    Embedding,
    Multilabel,
    Regression,
    SyncClient,
    WrongTask,
)
from fingerpost.errors import UnsupportedImage
from fingerpost.proxy import Proxy, ProxyConfig

PIXELS = np.full((SIDE, SIDE, 3), (200, 100, 10), np.uint8)
LABELS = "red\ngreen\nblue\n"


async def test_every_task_of_one_row(tmp_path: Path) -> None:
    row = expected(PIXELS)
    for task, tables in (
        ("embedding", ""),
        ("regression", ""),
        ("multilabel", '[output]\nactivation = "sigmoid"\n'),
        ("classification", '[output]\nactivation = "softmax"\n'),
    ):
        folder = tmp_path / task
        write_row_model(folder, "python", f'task = "{task}"', tables)
        (folder / "labels.txt").write_text(LABELS)
        async with (
            serving_folder(folder) as rig,
            Client(f"static://127.0.0.1:{rig.port}") as client,
        ):
            found = await client.infer(PIXELS, "model", timeout_s=20)
            assert (found.model, found.version, found.attempts) == ("model", "1", 1)
            assert found.address == f"127.0.0.1:{rig.port}"
            assert found.timings_ms is not None
            assert found.elapsed_s > 0
            match found:
                case Embedding():
                    assert found.vector == pytest.approx(row, abs=1e-5)
                case Regression():
                    assert found["red"] == pytest.approx(row[0], abs=1e-5)
                    assert found.labels == ("red", "green", "blue")
                case Multilabel():
                    assert found.labels == ("red", "green")
                case Classification():
                    assert found.label == "red"
                case _:
                    raise AssertionError(found)
            assert type(found).__name__.lower() == task


async def test_errors_are_typed(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "embedding"')
    async with serving_folder(tmp_path / "model") as rig:
        url = f"static://127.0.0.1:{rig.port}"
        async with Client(url) as client:
            with pytest.raises(WrongTask, match=r"answers embedding.*client\.infer"):
                await client.classify(PIXELS, "model")
            with pytest.raises(UnsupportedImage):
                await client.infer(b"not an image", "model")

        def use() -> object:
            with SyncClient(url) as client:
                return client.infer(PIXELS, "model", timeout_s=20)

        found = await asyncio.to_thread(use)
    assert isinstance(found, Embedding)
    assert found.vector == pytest.approx(expected(PIXELS), abs=1e-5)


async def test_through_a_proxy_that_relays(tmp_path: Path) -> None:
    write_row_model(tmp_path / "model", "python", 'task = "embedding"')
    async with serving_folder(tmp_path / "model") as rig:
        registry = f"static://127.0.0.1:{rig.port}?model=model"
        config = ProxyConfig(registry=registry, port=0, relay=True, probe_interval_s=0)
        async with Proxy(config) as proxy:
            async with Client(proxy.url, config=ClientConfig(relay=True)) as client:
                found = await client.infer(PIXELS, "model", timeout_s=20)
                assert found.relay == proxy.url.removeprefix("http://")
                assert isinstance(found, Embedding)
                assert found.vector == pytest.approx(expected(PIXELS), abs=1e-5)
            async with (
                aiohttp.ClientSession(proxy.url) as http,
                http.post("/v1/infer/model?top=2", data=b"", allow_redirects=False) as answer,
            ):
                assert answer.status == 307
                where = answer.headers["Location"]
                assert where.startswith(rig.url)
                assert where.endswith("/v1/infer/model?top=2")
