"""A file that is not what it should be is the problem of one model, and it is seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fingerpost.registry import open_registry
from fingerpost.worker.repository.sources import ModelRoot
from fingerpost.worker.repository.versions.policy import VersionPolicy
from tests.support.repository import write_version
from tests.support.waiting import until

LATEST = VersionPolicy(latest=1)


def _latin_1(path: Path) -> None:
    path.write_bytes(b"# caf\xe9\n")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 36)


def _secret(path: Path) -> None:
    secret = path.parents[2] / "secret.toml"
    secret.write_text('policy = "all"\n')
    path.symlink_to(secret)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _deep(path: Path) -> None:
    path.write_bytes(b"policy = " + b"[" * 100_000)


# What stands in place of versions.toml, and what is said about it.
SETTINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "Latin-1": (_latin_1, "byte 0xe9 at offset 5, in line 1; save it as UTF-8"),
    "a pipe": (os.mkfifo, "is a named pipe, not a regular file"),
    "a folder": (Path.mkdir, "is a folder, not a regular file"),
    "a device": (_device, "outside of the model's folder"),
    "huge": (_huge, "has 68,719,476,736 bytes, over the limit"),
    "a symlink that leaves": (_secret, "outside of the model's folder"),
    "a symlink to itself": (_loop, "which leads nowhere"),
    "nested deep": (_deep, "nested too deep"),
}


def _flowers_and_birds(folder: Path) -> Path:
    """A folder of two models of one version each."""
    for name in ("flowers", "birds"):
        write_version(folder / "models" / name, 1)
    return folder / "models"


async def _only_birds_are_updated(models: Path, ask: Any, worker: Any) -> None:
    """The second version of `birds` comes and is served; `flowers` answers as it did before."""
    write_version(models / "birds", 2)

    async def updated() -> bool:
        return await ask(worker, "birds") == ("2", "v2")

    await until(updated)
    assert await ask(worker, "flowers") == ("1", "v1")


@pytest.mark.parametrize("kind", SETTINGS)
async def test_bad_settings_of_one_model(tmp_path, serve, ask, order, registry_url, caplog, kind):
    """The other model is updated; the log, the admin API and the registry say why this one not."""
    put, message = SETTINGS[kind]
    models = _flowers_and_birds(tmp_path)
    worker = await serve(models)
    put(models / "flowers" / "versions.toml")
    await until(lambda: message in caplog.text)
    (line,) = [each.getMessage() for each in caplog.records if message in each.getMessage()]
    assert line.startswith(f"flowers: {models}/flowers/versions.toml")
    await _only_birds_are_updated(models, ask, worker)
    listed = {each["name"]: each for each in (await order(worker, "GET", ""))[1]["models"]}
    assert message in listed["flowers"]["problems"][0]
    assert listed["birds"]["problems"] == []
    registry = open_registry(registry_url)
    try:
        (entry,) = (await registry.list("flowers")).instances
        assert message in entry.meta["load-error"]  # what `fingerpost status` shows
    finally:
        await registry.aclose()
    path = models / "flowers" / "versions.toml"
    path.rmdir() if path.is_dir() else path.unlink()

    async def mended() -> bool:
        listed = (await order(worker, "GET", ""))[1]["models"]
        return all(each["problems"] == [] for each in listed)

    await until(mended)


def _labels(put: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(version: Path) -> None:
        (version / "labels.txt").unlink()
        put(version / "labels.txt")

    return spoil


# What is wrong with a version's folder, and what is said about it.
VERSIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "labels in Latin-1": (_labels(_latin_1), "byte 0xe9 at offset 5"),
    "labels are a pipe": (_labels(os.mkfifo), "labels.txt is a named pipe"),
    "labels are a device": (_labels(_device), "labels.txt is a symlink to /dev/zero, outside"),
    "labels leave the folder": (_labels(_secret), "secret.toml, outside of the model's folder"),
    "labels are huge": (_labels(_huge), "labels.txt has 68,719,476,736 bytes"),
    "labels are a symlink to themselves": (_labels(_loop), "which leads nowhere"),
    "weights are a pipe": (lambda at: os.mkfifo(at / "weights.bin"), "weights.bin is a named pipe"),
    "weights are a device": (
        lambda at: (at / "weights.bin").symlink_to("/dev/urandom"),
        "weights.bin is a symlink to /dev/urandom, outside",
    ),
    "a folder that leaves": (lambda at: (at / "data").symlink_to("/etc"), "is a symlink to /etc"),
    "model.toml in Latin-1": (lambda at: _latin_1(at / "model.toml"), "byte 0xe9 at offset 5"),
}


@pytest.mark.parametrize("kind", VERSIONS)
async def test_a_bad_version_of_one_model(tmp_path, serve, ask, order, caplog, kind):
    spoil, message = VERSIONS[kind]
    models = _flowers_and_birds(tmp_path)
    worker = await serve(models)
    made = write_version(tmp_path / "elsewhere" / "flowers", 2)
    spoil(made)
    made.rename(models / "flowers" / "2")
    await until(lambda: message in caplog.text)
    await _only_birds_are_updated(models, ask, worker)
    listed = {each["name"]: each for each in (await order(worker, "GET", ""))[1]["models"]}
    assert message in listed["flowers"]["problems"][0]
    assert listed["birds"]["problems"] == []


async def test_an_alias_to_a_version_that_is_missing_is_logged(tmp_path, serve, caplog):
    write_version(tmp_path / "flowers", 1)
    await serve(tmp_path)
    (tmp_path / "flowers" / "versions.toml").write_text("[aliases]\nstable = 7\n")
    await until(
        lambda: "flowers: alias stable points to version 7, which does not exist" in caplog.text
    )


@pytest.mark.slow
def test_one_folder_that_cannot_be_scanned_leaves_the_others(tmp_path: Path) -> None:
    """Also a file name that is not UTF-8, which once ended every scan."""
    write_version(tmp_path / "birds", 1)
    crowd = write_version(tmp_path / "flowers", 1)
    source = ModelRoot(tmp_path, policy=LATEST)
    before = source.scan()["flowers"].versions
    (write_version(tmp_path / "birds", 2) / os.fsdecode(b"caf\xe9")).touch()
    for number in range(10_001):
        (crowd / str(number)).touch()
    found = source.scan()
    assert set(found["birds"].versions) == {1, 2}
    assert found["flowers"].versions == before, "an error is not an empty folder"
    assert "flowers/1 has over 10,000 files" in found["flowers"].error


@pytest.mark.frameworks
async def test_all_of_the_reason_and_the_remedy_are_told(tmp_path, serve, ask, order, caplog):
    """Keras needs some 700 characters for the reason; what to do comes after it."""
    import keras

    write_version(tmp_path / "flowers", 1)
    worker = await serve(tmp_path / "flowers", alone=True)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Lambda(lambda x: x)])
    partial = tmp_path / "flowers" / "2.partial"
    partial.mkdir()
    model.save(partial / "model.keras")
    partial.rename(tmp_path / "flowers" / "2")
    await until(lambda: "load-error" in worker.instance.meta)
    versions = (await order(worker, "GET", ""))[1]["models"][0]["versions"]
    (error,) = [each["error"] for each in versions if each["version"] == "2"]
    assert len(error) > 500
    assert 'a SavedModel with model.export("FOLDER"), and serve that folder' in error
    assert error in caplog.text
    assert await ask(worker, "flowers") == ("1", "v1")


async def test_a_long_reason_is_cut_in_the_registry_alone(tmp_path, serve, order, caplog):
    write_version(tmp_path / "flowers", 1)
    worker = await serve(tmp_path / "flowers", alone=True)
    reason = "is not right " * 80
    folder = write_version(tmp_path / "flowers", 2, broken=True)
    (folder / "answers.py").write_text(
        f"from fingerpost.errors import ConfigurationError\nraise ConfigurationError({reason!r})\n"
    )
    await until(lambda: "is not right" in worker.instance.meta.get("load-error", ""))
    shown = worker.instance.meta["load-error"]
    assert len(shown) <= 400
    assert shown.endswith("... (the worker's log has all of it)")
    assert reason.strip() in caplog.text
    versions = (await order(worker, "GET", ""))[1]["models"][0]["versions"]
    assert reason.strip() in versions[0]["error"]
