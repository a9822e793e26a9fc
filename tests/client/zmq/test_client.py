"""The client over ZeroMQ: results, errors and retries as over HTTP, with real workers."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.proxy.test_leases import IMAGE as RED
from tests.proxy.test_leases import place
from tests.support.bad_images import BAD
from tests.support.optional import not_none
from tests.support.processes import Processes
from tests.support.python_models import write_python_model
from tests.support.tls_cluster import IMAGE, Flowers
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, SyncClient
from fingerpost.deploy.curve import curve_key
from fingerpost.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FingerpostError,
    ImageError,
    NoWorker,
    UnknownModel,
)
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig, ZmqConfig
from fingerpost.worker.engine.batching.config import BatchingConfig

ZMQ = ClientConfig(transport="zmq", connect_timeout_s=10.0)
PORT = ZmqConfig(port=0)


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


def worker(registry: str, zmq: ZmqConfig = PORT, **settings: Any) -> Worker:
    config = WorkerConfig(
        **{"registry": registry, "zmq": zmq, "drain": DrainConfig(lease_s=0.0), **settings}
    )
    return Worker.for_object(Flowers(), name="flowers", config=config)


async def test_results_are_those_of_http(registry: str) -> None:
    async with worker(registry) as one:
        await one.register()
        async with Client(registry=registry) as plain, Client(registry=registry, config=ZMQ) as zmq:
            found = [await client.classify(IMAGE, "flowers", top=1) for client in (plain, zmq)]
            same = [replace(each, elapsed_s=0.0, timings_ms=None) for each in found]
            assert same[0] == same[1]
            assert found[1].timings_ms
            results = [each async for each in zmq.stream([IMAGE] * 300, "flowers")]
            assert [each.error for each in results] == [None] * 300
            assert zmq.stats.bytes_sent == 301 * len(IMAGE)
            assert zmq.stats.retries == {}
            assert (await zmq.classify(iter([IMAGE[:50], IMAGE[50:]]), "flowers")).label == "rose"
            typed: list[Any] = [await each.infer(IMAGE, "flowers", top=1) for each in (plain, zmq)]
            alike = [replace(each, elapsed_s=0.0, timings_ms=None) for each in typed]
            assert alike[0] == alike[1]
            assert zmq.stats.bytes_sent == 303 * len(IMAGE)

        def sync() -> list[str]:
            with SyncClient(registry=registry, config=ZMQ) as client:
                first = client.classify(IMAGE, "flowers").label
                return [first, *(each.label for each in client.stream([IMAGE] * 20, "flowers"))]

        assert await asyncio.to_thread(sync) == ["rose"] * 21


async def test_errors_are_those_of_http(registry: str) -> None:
    def broken() -> Iterator[bytes]:
        yield IMAGE[:20]
        raise RuntimeError("the camera is gone")

    async with worker(registry) as one:
        await one.register()
        async with Client(registry=registry, config=ZMQ) as client:
            for name, (image, kind) in BAD.items():
                with pytest.raises(FingerpostError) as caught:
                    await client.classify(image, "flowers")
                assert type(caught.value) is kind, name
            with pytest.raises(UnknownModel):
                await client.classify(IMAGE, "flowers@9")
            with pytest.raises(ImageError, match="the camera is gone"):
                await client.classify(broken(), "flowers")
            with pytest.raises(ImageError, match="over the limit of 20,000,000"):
                await client.classify(bytes(64_000_001), "flowers")
            assert (await client.classify(IMAGE, "flowers")).label == "rose"


async def test_workers_without_the_port_are_left_out_and_named(registry: str) -> None:
    quick = dataclasses.replace(ZMQ, wait_for_ready_s=0.3)
    async with worker(registry, ZmqConfig()) as without:
        await without.register()
        async with Client(registry=registry, config=quick) as client:
            with pytest.raises(NoWorker, match=rf"{without.instance.address}.*--zmq-port"):
                await client.classify(IMAGE, "flowers")
            async with worker(registry) as one:
                await one.register()
                results = [each async for each in client.stream([IMAGE] * 20, "flowers")]
                assert {each.worker for each in results} == {one.instance.id}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transport": "tcp"}, "use http or zmq"),
        ({"transport": "zmq", "relay": True}, "relay over HTTP alone"),
        ({"zmq_key": "k"}, "of use only with transport='zmq'"),
        ({"transport": "zmq", "zmq_workers": 7}, "zmq_workers=7"),
    ],
)
def test_settings_that_are_not_valid(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ClientConfig(**settings)


async def test_a_worker_that_drains_loses_no_image(registry: str) -> None:
    async with worker(registry) as one, worker(registry) as two:
        await one.register()
        await two.register()
        async with Client(registry=registry, config=ZMQ) as client:
            results, leaving = [], []
            async for each in client.stream([IMAGE] * 600, "flowers", concurrency=32):
                results.append(each)
                if len(results) == 200:
                    leaving.append(asyncio.create_task(one.leave()))
            await asyncio.gather(*leaving)
            assert [each.error for each in results if each.error] == []
            assert {each.worker for each in results[-100:]} == {two.instance.id}


async def test_an_overloaded_worker_is_waited_for(registry: str) -> None:
    async with worker(registry, batching=BatchingConfig(max_batch=1, max_queue=2)) as one:
        await one.register()
        async with Client(registry=registry, config=ZMQ) as client:
            stream = client.stream([IMAGE] * 100, "flowers", concurrency=40)
            results = [each async for each in stream]
            assert [each.error for each in results if each.error] == []
            assert any("overloaded" in each.retried for each in results)


class Held(Flowers):
    """A model that waits while its gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, batch: Any) -> Any:
        assert self.gate.wait(30)
        return super().predict(batch)


async def test_a_deadline_ends_an_image_in_the_worker_too(registry: str) -> None:
    model = Held()
    config = WorkerConfig(registry=registry, zmq=PORT, drain=DrainConfig(lease_s=0.0))
    async with Worker.for_object(model, name="flowers", config=config) as one:
        await one.register()
        async with Client(registry=registry, config=ZMQ) as client:
            await client.classify(IMAGE, "flowers")
            side: Any = not_none(one._running).side
            service = side.service
            model.gate.clear()
            with pytest.raises(DeadlineExceeded):
                await client.classify(IMAGE, "flowers", timeout_s=0.2)
            await until(lambda: service.admission.rif == 0)
            cancelled = asyncio.create_task(client.classify(IMAGE, "flowers"))
            await until(lambda: service.admission.rif == 1)
            cancelled.cancel()
            await until(lambda: service.admission.rif == 0)
            model.gate.set()
            assert (await client.classify(IMAGE, "flowers")).label == "rose"


async def test_a_lease_is_carried_and_renewed(tmp_path: Path) -> None:
    signing = LeaseConfig(life_s=10.0)
    async with (
        place(tmp_path, signing=signing, zmq=True) as here,
        Client(here.proxy.url, config=ZMQ) as client,
    ):
        assert (await client.classify(RED, "colours")).label == "red"
        verifier = not_none(here.rig.service._leases)._verifier
        verifier._rules = dataclasses.replace(verifier._rules, skew_s=0.0)
        end = time.monotonic() + 11
        while time.monotonic() < end:
            assert (await client.classify(RED, "colours")).label == "red"
            await asyncio.sleep(0.1)
        assert len(verifier) >= 2
        assert client.stats.retries == {}


async def test_keys_are_checked_by_both_ends(registry: str, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("server", "mine", "other")}
    public = {name: curve_key(path).decode() for name, path in paths.items()}
    clients, workers = tmp_path / "clients.txt", tmp_path / "workers.txt"
    clients.write_text(public["mine"])
    workers.write_text(public["server"])
    keys = ZmqConfig(port=0, key=paths["server"], clients=clients)
    async with worker(registry, keys) as one:
        await one.register()
        mine = dataclasses.replace(
            ZMQ, zmq_key=str(paths["mine"]), zmq_workers=str(workers), wait_for_ready_s=0.3
        )
        async with Client(registry=registry, config=mine) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
            typed: Any = await client.infer(IMAGE, "flowers")  # encrypted, as all of it
            assert typed.label == "rose"
        for wrong in (str(paths["other"]), None):  # without a key it makes one up
            config = dataclasses.replace(mine, zmq_key=wrong)
            async with Client(registry=registry, config=config) as client:
                with pytest.raises(DeadlineExceeded, match="--zmq-clients"):
                    await client.classify(IMAGE, "flowers", timeout_s=1)
        workers.write_text(public["other"])
        async with Client(registry=registry, config=mine) as client:
            with pytest.raises(NoWorker, match="not among those of zmq_workers"):
                await client.classify(IMAGE, "flowers")


SLOW = """
import time
import numpy as np

class Model:
    height = width = 8
    labels = ["one", "two"]
    def predict(self, batch):
        time.sleep(0.01)
        return np.full((len(batch), 2), 0.5, np.float32)
"""


@pytest.mark.system
async def test_a_killed_worker_fails_no_image(tmp_path: Path) -> None:
    model = write_python_model(tmp_path / "slow", SLOW, "mine:Model")
    with Processes(tmp_path) as processes:
        registry = processes.registry()
        killed, _ = (processes.worker(registry, model, "--zmq-port", 0) for _ in range(2))
        async with Client(registry=registry, config=ZMQ) as client:

            async def both() -> bool:
                try:
                    return len((await client.resolve("slow")).instances) == 2
                except FingerpostError:
                    return False

            await until(both, within_s=60)
            results = []
            async for each in client.stream([IMAGE] * 1000, "slow", concurrency=64):
                results.append(each)
                if len(results) == 200:
                    killed.signal(signal.SIGKILL)
            assert [each.error for each in results if each.error] == []
            assert len({each.worker for each in results[:200]}) == 2
            assert len({each.worker for each in results[-200:]}) == 1


@pytest.mark.shell
def test_without_the_extra_it_is_named() -> None:
    code = (
        "import asyncio, sys\n"
        "sys.modules['zmq'] = None\n"
        "from fingerpost.client import Client, ClientConfig\n"
        "async def main():\n"
        "    async with Client(config=ClientConfig(transport='zmq')) as client:\n"
        "        await client.classify(b'image', 'flowers')\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("ConfigurationError transport='zmq' needs ZeroMQ")
    assert "fingerpost[zmq]" in found.stdout
