"""A fake cluster answers like a real one, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
from tests.support.colours import encoded
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig, Result
from fingerpost.errors import (
    BrokenImage,
    ConfigurationError,
    DeadlineExceeded,
    Draining,
    FingerpostError,
    ModelFailed,
    NoWorker,
    Overloaded,
    UnknownModel,
    UnsupportedImage,
)
from fingerpost.testing import FakeCluster, FakeModel, ReceivedImage, fake_cluster
from fingerpost.worker import DrainConfig, Worker, WorkerConfig


@pytest.fixture(autouse=True)
async def _clean(no_task_left: None) -> AsyncIterator[None]:
    """Nothing is left running: no task and no thread."""
    before = set(threading.enumerate())
    yield
    left = [
        each
        for each in threading.enumerate()
        if each not in before and not each.name.startswith("asyncio_")
    ]
    assert not left


async def classify(
    cluster: FakeCluster, image: bytes = b"image", model: str = "flowers", timeout_s: float = 10.0
) -> Result:
    async with Client(cluster.proxy_url) as client:
        return await client.classify(image, model, timeout_s=timeout_s)


MODELS: dict[str, tuple[FakeModel, tuple[tuple[str, float], ...]]] = {
    "a label": ("daisy", (("daisy", 1.0),)),
    "pairs": ([("rose", 0.125), ("daisy", 0.875)], (("daisy", 0.875), ("rose", 0.125))),
    "a score of 0": ([("rose", 0.0), ("daisy", -0.0)], (("rose", 0.0), ("daisy", 0.0))),
    "a function to a label": (lambda image: f"{len(image)} bytes", (("5 bytes", 1.0),)),
    "a function to pairs": (lambda image: [(image.decode(), 0.98)], (("image", 0.98),)),
    "many": (
        [(f"label-{n}", n / 8) for n in range(8)],
        tuple((f"label-{n}", n / 8) for n in (7, 6, 5, 4, 3)),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
async def test_a_model_answers_what_the_test_says(kind: str) -> None:
    model, predictions = MODELS[kind]
    async with fake_cluster({"flowers": model}) as cluster:
        result = await classify(cluster)
        assert result.predictions == predictions
        assert cluster.workers[0].received == (ReceivedImage("flowers", "1", b"image"),)


async def test_an_answer_has_only_its_own_labels() -> None:
    async with fake_cluster({"flowers": lambda image: image.decode()}) as cluster:
        async with Client(cluster.proxy_url) as client:
            images = [f"flower-{n % 50}".encode() for n in range(200)]
            results = [each async for each in client.stream(images, "flowers", ordered=True)]
        assert [each.predictions for each in results] == [((i.decode(), 1.0),) for i in images]
        assert sorted(each.image for each in cluster.workers[0].received) == sorted(images)


async def test_versions_and_aliases() -> None:
    models = {"flowers@2": "old", "flowers@3": "new", "cats": "tabby"}
    async with fake_cluster(models, aliases={"flowers": {"stable": "2"}}) as cluster:
        for model, version, label in (
            ("flowers", "3", "new"),
            ("flowers@2", "2", "old"),
            ("flowers@stable", "2", "old"),
            ("cats", "1", "tabby"),
        ):
            result = await classify(cluster, model=model)
            assert (result.version, result.label) == (version, label)
        with pytest.raises(UnknownModel, match="aliases stable"):
            await classify(cluster, model="flowers@canary")
        assert [each.service for each in cluster.workers[0].instances] == ["cats", "flowers"]


BAD = {
    "no model": ({}, {}, "there is no model"),
    "an object": ({"flowers": object()}, {}, "of type object: .*Worker.for_object"),
    "a name": ({"Flowers": "x"}, {}, "'Flowers'"),
    "a version": ({"flowers@3.5": "x"}, {}, "'3.5'"),
    "an alias as a version": ({"flowers@stable": "x"}, {}, "names an alias"),
    "an alias": ({"flowers": "x"}, {"flowers": {"Stable": "1"}}, "'Stable'"),
    "an alias of no version": ({"flowers": "x"}, {"flowers": {"stable": "2"}}, "only flowers@1"),
    "an alias of no model": ({"flowers": "x"}, {"cats": {"stable": "1"}}, "only flowers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_models_that_are_not_valid(kind: str) -> None:
    models, aliases, says = BAD[kind]
    with pytest.raises(ConfigurationError, match=says):
        fake_cluster(models, aliases=aliases)


async def test_behaviour_that_is_not_valid() -> None:
    async with fake_cluster({}, workers=0) as empty:
        with pytest.raises(ConfigurationError, match="needs a model"):
            await empty.add_worker()
    with pytest.raises(ConfigurationError, match="workers is -1"):
        fake_cluster({"flowers": "daisy"}, workers=-1)
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        (worker,) = cluster.workers
        with pytest.raises(ConfigurationError, match="delay_s is -1"):
            worker.delay_s = -1
        with pytest.raises(ConfigurationError, match="times is 0"):
            worker.fail(BrokenImage("bad"), times=0)
        with pytest.raises(ConfigurationError, match="retry_after_s is -1"):
            worker.overload(retry_after_s=-1)


async def test_a_slow_worker() -> None:
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        (worker,) = cluster.workers
        worker.delay_s = 0.2
        assert (await classify(cluster)).elapsed_s >= 0.2
        worker.delay_s = 3600.0
        with pytest.raises(DeadlineExceeded):
            await classify(cluster, timeout_s=0.3)
        worker.recover()
        assert (await classify(cluster)).label == "daisy"


async def test_a_paused_worker_has_requests_in_flight() -> None:
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        (worker,) = cluster.workers
        worker.pause()
        calls = [asyncio.create_task(classify(cluster)) for _ in range(3)]
        await until(lambda: worker.in_flight == 3)
        assert not any(call.done() for call in calls)
        worker.resume()
        assert {each.label for each in await asyncio.gather(*calls)} == {"daisy"}
        await until(lambda: worker.in_flight == 0)


async def test_a_cluster_ends_with_requests_in_flight() -> None:
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        cluster.workers[0].pause()
        call = asyncio.create_task(classify(cluster, timeout_s=2.0))
        await until(lambda: cluster.workers[0].in_flight == 1)
    with pytest.raises(FingerpostError):
        await call


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BrokenImage("no pixels"), BrokenImage),
        (UnsupportedImage("a film"), UnsupportedImage),
        (ModelFailed("out of memory"), ModelFailed),
        (ValueError("wrong shape"), ModelFailed),
    ],
)
async def test_a_failing_worker(error: Exception, expected: type[FingerpostError]) -> None:
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        (worker,) = cluster.workers
        worker.fail(error)
        for _ in range(2):
            with pytest.raises(expected, match=str(error)):
                await classify(cluster)
        assert error.__traceback__ is None
        worker.recover()
        assert (await classify(cluster)).label == "daisy"


async def test_a_worker_that_fails_a_few_times() -> None:
    async with fake_cluster({"flowers": "daisy"}, workers=2) as cluster:
        for worker in cluster.workers:
            worker.fail(Overloaded("full", retry_after_s=0.05), times=1)
        result = await classify(cluster)
        assert result.label == "daisy"
        assert sum(len(worker.received) for worker in cluster.workers) == result.attempts > 1


async def test_an_image_that_fails_alone_reaches_the_model_once() -> None:
    def flower(image: bytes) -> str:
        if image.endswith(b"3"):
            raise BrokenImage("a three")
        return image.decode()

    async with fake_cluster({"flowers": flower}) as cluster:
        (worker,) = cluster.workers
        images = [str(n).encode() for n in range(40)]
        worker.pause()  # so that the rest is one batch
        async with Client(cluster.proxy_url) as client:
            calls = [asyncio.create_task(client.classify(each, "flowers")) for each in images]
            await until(lambda: worker.in_flight == 40)
            worker.resume()
            results = await asyncio.gather(*calls, return_exceptions=True)
        for image, result in zip(images, results, strict=True):
            if image.endswith(b"3"):
                assert isinstance(result, BrokenImage)
            else:
                assert isinstance(result, Result)
                assert result.label == image.decode()
        assert sorted(each.image for each in worker.received) == sorted(images)


async def test_a_model_without_an_answer_is_refused() -> None:
    """Clients take an answer without predictions for that of a broken worker."""
    with pytest.raises(ConfigurationError, match=r"answers \[\]: give a list of \(label, score\)"):
        async with fake_cluster({"flowers": []}):
            pass


async def test_an_overloaded_worker() -> None:
    async with fake_cluster({"flowers": "daisy"}, workers=2) as cluster:
        full, other = cluster.workers
        full.overload(retry_after_s=30.0)
        for _ in range(5):
            assert (await classify(cluster)).worker == other.instances[0].id
        assert full.received == ()
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{full.url}/v1/classify/flowers", data=b"image") as response,
        ):
            assert (response.status, response.headers["Retry-After"]) == (429, "30")
        full.recover()
        other.overload(retry_after_s=30.0)
        assert (await classify(cluster)).worker == full.instances[0].id


async def test_a_draining_worker() -> None:
    async with fake_cluster({"flowers": "daisy"}, workers=2) as cluster:
        leaving, other = cluster.workers
        leaving.pause()
        async with aiohttp.ClientSession(leaving.url) as http:
            request = asyncio.create_task(http.post("/", data=b"image"))
            await until(lambda: leaving.in_flight == 1)
            await leaving.drain()
            await leaving.drain()
            async with http.post("/", data=b"image") as refused:
                assert (refused.status, (await refused.json())["error"]["code"]) == (
                    503,
                    Draining.code,
                )
            leaving.resume()
            async with await request as answered:
                assert answered.status == 200
        assert leaving.draining
        await cluster.settled()
        assert (await classify(cluster)).worker == other.instances[0].id
        await other.drain()
        await cluster.settled()
        with pytest.raises((NoWorker, DeadlineExceeded)):
            await classify(cluster, timeout_s=0.5)
        await leaving.restart()
        await cluster.settled()
        assert (await classify(cluster)).worker == leaving.instances[0].id


async def test_a_dead_worker() -> None:
    async with fake_cluster({"flowers": "daisy"}, workers=2) as cluster:
        for worker in cluster.workers:
            worker.pause()
        async with Client(cluster.proxy_url) as client:
            calls = [asyncio.create_task(client.classify(b"image", "flowers")) for _ in range(3)]
            await until(lambda: sum(worker.in_flight for worker in cluster.workers) == 3)
            dead, other = sorted(cluster.workers, key=lambda worker: -worker.in_flight)
            before = dead.instances[0]
            await dead.kill()
            assert (dead.instances, dead.in_flight, dead.received) == ((), 0, ())
            other.resume()
            assert {each.worker for each in await asyncio.gather(*calls)} == {other.instances[0].id}
            with pytest.raises(RuntimeError, match="restart"):
                _ = dead.url
            with pytest.raises(RuntimeError, match="restart"):
                await dead.kill()
            await cluster.settled()
            dead.recover()
            await dead.restart()
            await cluster.settled()
            assert dead.instances[0].id != before.id
            await other.kill()
            result = await client.classify(b"image", "flowers")
            assert result.worker == dead.instances[0].id


async def test_workers_may_differ() -> None:
    async with fake_cluster({"flowers": "daisy"}, workers=0) as cluster:
        await cluster.add_worker({"flowers@2": "old"}, aliases={"flowers": {"stable": "2"}})
        far = await cluster.add_worker(zone="far", weight=7)
        assert (await classify(cluster, model="flowers@stable")).label == "old"
        assert (await classify(cluster, model="flowers@1")).label == "daisy"
        assert (far.instances[0].zone, far.instances[0].weight) == ("far", 7)


async def test_outages_of_the_proxy_and_the_registry() -> None:
    async with fake_cluster({"flowers": "daisy"}) as cluster:
        async with Client(cluster.proxy_url) as client:
            await client.classify(b"image", "flowers")
            url = cluster.proxy_url
            await cluster.stop_registry()
            await cluster.stop_proxy()
            assert (await client.classify(b"image", "flowers")).label == "daisy"
            await cluster.start_registry()
            await cluster.start_proxy()
            await cluster.start_proxy()
            assert cluster.proxy_url == url
        await cluster.settled()
        assert (await classify(cluster)).label == "daisy"


async def test_straight_from_the_registry_and_by_the_relay() -> None:
    async with fake_cluster({"flowers": "daisy"}, relay=True) as cluster:
        async with Client(registry=cluster.registry_url) as client:
            assert (await client.classify(b"image", "flowers")).label == "daisy"
        async with Client(cluster.proxy_url, config=ClientConfig(relay=True)) as client:
            result = await client.classify(b"image", "flowers")
        assert (result.label, result.relay) == ("daisy", cluster.proxy_url.removeprefix("http://"))


async def test_images_may_be_checked() -> None:
    async with fake_cluster({"flowers": "daisy"}, check_images=True) as cluster:
        with pytest.raises(UnsupportedImage):
            await classify(cluster, b"not an image")
        image = encoded("red")
        assert (await classify(cluster, image)).label == "daisy"
        assert [each.image for each in cluster.workers[0].received] == [image]


async def test_a_worker_of_ones_own_joins() -> None:
    class Colours:
        height = width = 16
        labels = ("red", "green", "blue")

        def predict(self, batch: np.ndarray) -> np.ndarray:
            return batch.mean(axis=(1, 2)) / 255

    async with fake_cluster({}, workers=0) as cluster:
        config = WorkerConfig(registry=cluster.registry_url, drain=DrainConfig(lease_s=0.0))
        async with Worker.for_object(Colours(), name="colours", config=config) as worker:
            await worker.register()
            result = await classify(cluster, encoded("green"), "colours")
            assert (result.label, result.worker) == ("green", worker.instance.id)
            await worker.leave()


async def test_other_ways_in() -> None:
    async with (
        fake_cluster({"flowers": [("daisy", 0.75), ("rose", 0.25)]}) as cluster,
        aiohttp.ClientSession() as http,
    ):
        async with http.get(cluster.proxy_url) as response:
            address = (await response.text()).strip()
        async with http.post(f"http://{address}/", data=b"image") as response:
            assert await response.json() == [["daisy", 0.75], ["rose", 0.25]]
        body = {"instances": [{"b64": "aW1hZ2U="}]}
        predict = f"http://{address}/v1/models/flowers:predict"
        async with http.post(predict, json=body) as response:
            assert await response.json() == {"predictions": [[0.75, 0.25]]}
        assert [each.image for each in cluster.workers[0].received] == [b"image"] * 2
