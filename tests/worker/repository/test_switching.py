"""A real worker, real clients, and versions that come and go on disk."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter

import aiohttp
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry import ModelInfo, open_registry
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.repository import write_version
from tests.support.waiting import until


class Load:
    """Clients that ask without a pause, and remember each answer or failure.

    Half of them ask for the newest version that the registry told of, by its number: what they
    were told may be old by the time they ask.
    """

    def __init__(self, worker, registry_url: str, clients: int = 8) -> None:
        self._worker = worker
        self._registry = open_registry(registry_url)
        self._clients = clients
        self.answers: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    async def __aenter__(self):
        self._watch = self._registry.watch("flowers")
        await self._watch.ready(5)
        self._http = aiohttp.ClientSession(self._worker.instance.url)
        self._tasks = [asyncio.create_task(self._ask(n % 2 == 0)) for n in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        await self._registry.aclose()

    async def _ask(self, by_number: bool) -> None:
        while True:
            reference = "flowers"
            if by_number:
                (instance,) = not_none(self._watch.view).instances
                reference += f"@{instance.models[0].versions[0]}"
            async with self._http.post(f"/v1/classify/{reference}", data=b"image") as response:
                body = await response.json()
                if response.status != 200:
                    self.failures.append(f"{reference}: {response.status} {body}")
                else:
                    label = body["results"][0]["predictions"][0][0]
                    self.answers[body["version"], label] += 1

    async def more(self, count: int = 50) -> None:
        """Wait for more answers."""
        wanted = self.answers.total() + count
        await until(lambda: self.failures or self.answers.total() >= wanted)
        assert not self.failures


async def test_switches_under_load_fail_nothing_and_nothing_answers_cold(
    tmp_path, serve, registry_url
):
    folder = tmp_path / "flowers"
    write_version(folder, 1, warm_up_s=0.1)
    worker = await serve(folder, alone=True)

    def served(*versions: str):
        return lambda: worker.instance.models[0].versions == versions

    async with Load(worker, registry_url) as load:
        await load.more()
        for version in (2, 3):
            write_version(folder, version, warm_up_s=0.5)
            await load.more()
            assert served(str(version - 1))(), "it is still warming up"
            await until(served(str(version)))
            await load.more()
        shutil.rmtree(folder / "3")
        await until(served("2"))
        await load.more()
    assert load.failures == []
    assert set(load.answers) == {("1", "v1"), ("2", "v2"), ("3", "v3")}


async def test_a_broken_version_shows_everywhere_and_disturbs_nothing(
    tmp_path, serve, registry_url, http, order
):
    folder = tmp_path / "flowers"
    write_version(folder, 1)
    worker = await serve(folder, alone=True)
    async with Load(worker, registry_url) as load:
        write_version(folder, 2, broken=True)
        reason = "class 'answers:Model' cannot be loaded: ValueError: its weights are damaged"
        await until(lambda: reason in worker.instance.meta.get("load-error", ""))
        await load.more()
    assert load.failures == []
    assert set(load.answers) == {("1", "v1")}

    async def told():
        (instance,) = (await registry.list("flowers")).instances
        return instance == worker.instance and instance.meta["load-error"].startswith("version 2:")

    registry = open_registry(registry_url)
    await until(told)
    await registry.aclose()
    async with http.get(worker.instance.url + "/metrics") as response:
        text = await response.text()
    assert 'fingerpost_worker_load_failures_total{model="flowers"} 1.0' in text
    assert 'fingerpost_worker_versions{model="flowers",state="END",version="2"} 1.0' in text
    assert 'fingerpost_worker_versions{model="flowers",state="AVAILABLE",version="1"} 1.0' in text
    async with http.get(worker.instance.url + "/v1/models/flowers/versions/2") as response:
        assert '"END"' in await response.text()
    status, answer = await order(worker, "POST", "flowers/versions/2/load")
    assert (status, answer["error"]["code"]) == (400, "configuration")
    assert reason in answer["error"]["message"]
    write_version(folder, 2)  # mended
    await order(worker, "POST", "flowers/versions/2/load")
    await until(lambda: worker.instance.models[0].versions == ("2",))
    assert "load-error" not in worker.instance.meta


async def test_several_models_come_and_go_each_as_a_service(tmp_path, serve, registry_url, ask):
    write_version(tmp_path / "flowers", 1)
    write_version(tmp_path / "birds", 7)
    write_version(tmp_path / "broken", 1, broken=True)
    (tmp_path / "Not a Model").mkdir()
    worker = await serve(tmp_path)
    registry = open_registry(registry_url)
    assert (await registry.catalog()).services == ("birds", "flowers")
    birds, flowers = worker.instances
    assert birds.models == (ModelInfo(name="birds", versions=("7",)),)
    assert (birds.boot_id, birds.address) == (flowers.boot_id, flowers.address)
    assert birds.id != flowers.id
    assert await ask(worker, "birds") == ("7", "v7")
    assert await ask(worker, "broken") == ("404", "unknown_model")

    async def services(*names: str):
        return (await registry.catalog()).services == names

    write_version(tmp_path / "cats", 1)
    await until(lambda: services("birds", "cats", "flowers"))
    assert await ask(worker, "cats") == ("1", "v1")
    shutil.rmtree(tmp_path / "flowers")
    await until(lambda: services("birds", "cats"))

    async def refused():
        return await ask(worker, "flowers") == ("404", "unknown_model")

    await until(refused)
    write_version(tmp_path / "flowers", 2)
    await until(lambda: services("birds", "cats", "flowers"))
    assert (await registry.list("flowers")).instances[0].models[0].versions == ("2",)
    await worker.leave()
    for service in ("birds", "cats", "flowers"):
        snapshot = await registry.list(service)
        assert snapshot.known
        assert snapshot.instances == (), "all are drained"
    await registry.aclose()


async def test_a_model_that_is_back_before_its_entry_is_gone_keeps_it(
    tmp_path, serve, registry_url
):
    write_version(tmp_path / "flowers", 1)
    write_version(tmp_path / "birds", 1)
    worker = await serve(tmp_path, lease_s=1.0)
    registry = open_registry(registry_url)

    async def listed(count: int):
        snapshot = await registry.list("flowers")
        return snapshot.known and len(snapshot.instances) == count

    (tmp_path / "flowers").rename(tmp_path / "flowers.old")
    await until(lambda: listed(0))
    (tmp_path / "flowers.old").rename(tmp_path / "flowers")
    await until(lambda: listed(1))
    assert (await registry.list("flowers")).instances[0] in worker.instances
    await registry.aclose()


async def test_a_repository_that_vanishes_takes_nothing_with_it(tmp_path, serve, ask, caplog):
    root = tmp_path / "models"
    write_version(root / "flowers", 1)
    worker = await serve(root)
    for gone in (lambda: root.rename(tmp_path / "away"), root.mkdir):
        caplog.clear()
        gone()
        await until(lambda: "the loaded models stay loaded" in caplog.text)
        assert await ask(worker, "flowers") == ("1", "v1")
    root.rmdir()
    (tmp_path / "away").rename(root)
    write_version(root / "flowers", 2)
    await until(lambda: worker.instance.models[0].versions == ("2",))


async def test_a_switch_of_tensorflow_models(tmp_path, models, serve, ask):
    folder = tmp_path / "colours"
    shutil.copytree(models.saved_model / "7", folder / "7")
    worker = await serve(folder, alone=True)
    assert (await ask(worker, "colours", encoded("green")))[1] == "green"
    shutil.copytree(models.saved_model / "7", folder / "8.partial")
    (folder / "8.partial").rename(folder / "8")
    await until(lambda: worker.instance.models[0].versions == ("8",), within_s=30)
    assert await ask(worker, "colours", encoded("blue")) == ("8", "blue")


@pytest.mark.parametrize(
    ("names", "only", "says"),
    [
        ([], (), "has no models"),
        (["flowers"], ("flowers", "cats"), "has no model cats"),
        (["broken"], (), "broken: version 1: .*its weights are damaged"),
    ],
)
async def test_a_start_with_nothing_to_serve_says_why(tmp_path, serve, names, only, says):
    for name in names:
        write_version(tmp_path / name, 1, broken=name == "broken")
    with pytest.raises(ConfigurationError, match=says):
        await serve(tmp_path, only=only)


async def test_a_worker_that_ends_while_it_loads_leaves_nothing(tmp_path, serve, http):
    folder = tmp_path / "flowers"
    write_version(folder, 1)
    worker = await serve(folder, alone=True)
    write_version(folder, 2, warm_up_s=0.5)

    async def loading():
        async with http.get(worker.instance.url + "/v1/models/flowers/versions/2") as response:
            return '"LOADING"' in await response.text()

    await until(loading)


async def test_an_alias_to_a_version_that_does_not_exist_is_logged(tmp_path, serve, caplog):
    write_version(tmp_path / "flowers", 1)
    settings = tmp_path / "flowers" / "versions.toml"
    settings.write_text("[aliases]\nstable = 1\nnewest = 9\n")
    worker = await serve(tmp_path)
    missing = "alias {} points to version {}, which does not exist"
    assert missing.format("newest", 9) in caplog.text
    assert worker.instance.models[0].aliases == {"stable": "1"}
    settings.write_text("[aliases]\nstable = 1\ncanary = 7\n")
    await until(lambda: "flowers: " + missing.format("canary", 7) in caplog.text)
