"""`fingerpost.worker.serve` and `Worker.for_object`: a Python object as a model."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from fingerpost.client import Client
from fingerpost.errors import ConfigurationError, RegistryUnreachable
from fingerpost.registry import Instance, open_registry
from fingerpost.registry.embedded.server import EmbeddedRegistry
from fingerpost.registry.http.app import bind
from fingerpost.registry.http.app import serve as serve_http
from fingerpost.worker import DrainConfig, Worker, WorkerConfig, serve
from fingerpost.worker.config import RegistrationConfig
from tests.support.colours import encoded
from tests.support.waiting import until

pytestmark = pytest.mark.shell

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_object.py"


class Colours:
    """The share of each colour; it notes what is called, in which thread."""

    height = width = 8
    labels = ("red", "green", "blue")
    max_batch = 4

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[str] = set()

    def load(self) -> None:
        self.note("load")

    def predict(self, batch: np.ndarray) -> np.ndarray:
        self.note("predict", (str(batch.dtype), batch.shape))
        return batch.mean(axis=(1, 2)) / 255

    def close(self) -> None:
        self.note("close")

    def note(self, call: str, value: Any = None) -> None:
        self.calls.append((call, value))
        self.threads.add(threading.current_thread().name)


@pytest.fixture
async def registry_url() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as server:
        yield server.url


def config(registry_url: str) -> WorkerConfig:
    return WorkerConfig(registry=registry_url, drain=DrainConfig(lease_s=0.0))


async def classify(instance: Instance, colour: str) -> list[Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(instance.url, data=encoded(colour)) as response,
    ):
        assert response.status == 200, await response.text()
        return list(await response.json())


async def registered(url: str, name: str) -> Instance:
    opened = open_registry(url)

    async def found() -> Instance | None:
        instances = (await opened.list(name)).instances
        return instances[0] if instances else None

    instance: Instance = await until(found, f"{name} is registered")
    await opened.aclose()
    return instance


async def gone(url: str, name: str) -> bool:
    opened = open_registry(url)
    known = (await opened.list(name)).known
    await opened.aclose()
    return not known


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def test_the_example_serves_a_plain_post_and_a_client_and_drains(registry_url: str) -> None:
    with program(str(EXAMPLE), registry_url) as process:
        instance = await registered(registry_url, "colours")
        request = urllib.request.Request(instance.url, data=encoded("green"))  # noqa: S310
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
            assert json.load(answer)[0][0] == "green"
        async with Client(registry=registry_url) as client:
            result = await client.classify(encoded("blue"), "colours")
        assert result.label == "blue"
        assert result.worker == instance.id
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 0, errors.decode()
        assert b"ready at http://127.0.0.1:" in errors
        assert b"Traceback" not in errors
        assert await gone(registry_url, "colours")


async def test_a_signal_ends_a_worker_that_cannot_register() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=500, text="no cluster leader")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await serve_http(runner, bind("127.0.0.1", 0))
    with program(str(EXAMPLE), f"http://127.0.0.1:{runner.addresses[0][1]}") as process:
        assert process.stderr is not None
        while b"not registered yet" not in await asyncio.to_thread(process.stderr.readline):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.to_thread(process.communicate, timeout=15)
        assert process.returncode == 0, errors.decode()
        assert b"Traceback" not in errors
    await runner.cleanup()


async def test_a_worker_in_a_program_with_a_loop_of_its_own(registry_url: str) -> None:
    model = Colours()
    async with Worker.for_object(
        model, name="colours", version="3", config=config(registry_url)
    ) as worker:
        sizes = (1, 4, 1, 1, 4)
        assert model.calls == [
            ("load", None),
            *(("predict", ("uint8", (size, 8, 8, 3))) for size in sizes),
        ], "loaded, and warmed up with the smallest and the largest batch"
        await worker.register()
        instance = await registered(registry_url, "colours")
        assert instance.models[0].versions == ("3",)
        assert instance.meta["image"] == "8x8x3"
        assert (await classify(instance, "red"))[0][0] == "red"
        await worker.leave()
    assert model.calls[-1] == ("close", None)
    assert "MainThread" not in model.threads
    assert await gone(registry_url, "colours")


async def test_arguments_in_place_of_attributes(registry_url: str, caplog: Any) -> None:
    class Plain:
        def __init__(self) -> None:
            self.shapes: list[tuple[int, ...]] = []

        def predict(self, batch: np.ndarray) -> list[list[float]]:
            self.shapes.append(batch.shape)
            return [[0.25, 0.75]] * len(batch)

    model = Plain()
    async with Worker.for_object(
        model, name="plain", image_size=(4, 6), max_batch=2, config=config(registry_url)
    ) as worker:
        assert model.shapes == [(size, 4, 6, 3) for size in (1, 2, 1, 1, 2)]
        assert await classify(worker.instance, "red") == [["1", 0.75], ["0", 0.25]]
    assert "model plain has no labels: answers name classes 0 to 1" in caplog.text
    async with Worker.for_object(
        Plain(), name="plain", image_size=4, labels=["a", "b"], config=config(registry_url)
    ) as worker:
        assert (await classify(worker.instance, "red"))[0] == ["b", 0.75]


async def test_encoded_images_and_inline(registry_url: str) -> None:
    class Sizes:
        encoded = inline = True
        labels = ("bytes",)

        def predict(self, batch: list[bytes]) -> list[list[int]]:
            assert threading.current_thread() is threading.main_thread() or len(batch) < 3
            return [[len(image)] for image in batch]

    async with Worker.for_object(Sizes(), name="sizes", config=config(registry_url)) as worker:
        assert await classify(worker.instance, "red") == [["bytes", len(encoded("red"))]]


class Failing(Colours):
    def load(self) -> None:
        raise FileNotFoundError("weights.npy")


class TooFew(Colours):
    labels = ("red", "green")  # type: ignore[assignment]


class NoScores(Colours):
    def predict(self, batch: np.ndarray) -> np.ndarray:
        return batch.mean(axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Failing(), {}, r"model m: its load\(\) fails: FileNotFoundError: weights.npy"),
        (TooFew(), {}, "gives 3 scores for an image, but has 2 labels"),
        (NoScores(), {}, "fails on a gray image .*expected one row of scores"),
        (object(), {"image_size": 4}, "class 'builtins:object' has no method predict"),
        (Colours(), {"image_size": 4}, "input.height is 4 .*but the model takes 8"),
    ],
)
async def test_an_object_that_cannot_be_served(
    registry_url: str, model: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with Worker.for_object(model, name="m", config=config(registry_url), **arguments):
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Flowers!"}, "Flowers!"),
        ({"version": "newest"}, "newest"),
        ({"labels": "red"}, "labels is 'red': it must be a list of names"),
        ({"labels": ["red", ""]}, "it must be a list of names"),
        ({"max_batch": 0}, "batch.max is 0: it must be 1 to 4096"),
        ({"image_size": 0}, "input.height is 0"),
    ],
)
def test_an_argument_that_is_not_valid(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Worker.for_object(Colours(), **{"name": "m", **arguments})


AT_ONCE = WorkerConfig(registration=RegistrationConfig(registry_wait_s=0))


@pytest.mark.shell
def test_serve_without_a_registry_fails_before_it_loads(caplog: Any) -> None:
    model = Colours()
    caplog.set_level(logging.INFO)  # pytest's handlers keep `serve` from adding one
    with pytest.raises(RegistryUnreachable, match="127.0.0.1:9") as caught:
        serve(model, name="colours", registry="http://127.0.0.1:9", config=AT_ONCE)
    assert model.calls == []
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("Traceback") == 1, "no chain of causes"


@pytest.mark.shell
def test_the_local_registry_that_is_not_running_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fingerpost.registry.factory._EMBEDDED", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnreachable, match="127.0.0.1:9 .*`fingerpost registry`.*registry="):
        serve(Colours(), name="colours", config=AT_ONCE)


async def test_serve_needs_the_main_thread_and_no_event_loop() -> None:
    with pytest.raises(RuntimeError, match=r"Worker\.for_object"):
        serve(Colours(), name="colours")

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=r"Worker\.for_object"):
            serve(Colours(), name="colours")

    await asyncio.to_thread(elsewhere)
