"""Labels that come or change after their version was loaded."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest

from fingerpost.worker.models.files import find_model
from fingerpost.worker.repository.sources import FixedModel, ModelFolder, ModelSource
from fingerpost.worker.repository.versions.policy import VersionPolicy
from tests.support.repository import write_version
from tests.support.waiting import until

LATEST = VersionPolicy(latest=1)
KINDS = ["many models", "one model", "one version", "a file elsewhere", "one version, elsewhere"]


def source_of(kind: str, models: Path, elsewhere: Path) -> ModelSource | Path:
    """What `fingerpost worker` makes of `--models`, `--model` and `--labels`."""
    if kind == "many models":
        return models
    if kind.startswith("one version"):
        labels = elsewhere if "elsewhere" in kind else None
        find = partial(find_model, models / "flowers" / "3", labels=labels)
        return FixedModel(find(), find)
    labels = elsewhere if "elsewhere" in kind else None
    return ModelFolder(models / "flowers", policy=LATEST, labels=labels)


@pytest.mark.parametrize("kind", KINDS)
async def test_labels_that_come_late_or_change(tmp_path, serve, ask, caplog, kind):
    caplog.set_level(logging.INFO)
    models, elsewhere = tmp_path / "models", tmp_path / "given.txt"
    inside = write_version(models / "flowers", 3) / "labels.txt"
    path = elsewhere if "elsewhere" in kind else inside
    if path is inside:
        inside.unlink()
    else:
        path.write_text("first\nsecond\n")
    worker = await serve(source_of(kind, models, elsewhere))
    assert await ask(worker, "flowers") == ("3", "1" if path is inside else "second")
    for label in ("daisy", "rose"):
        path.write_text(f"cold\n{label}\n")

        async def answered(label: str = label) -> bool:
            return await ask(worker, "flowers") == ("3", label)

        await until(answered)
        assert f"flowers@3: its labels were read again: cold, {label}" in caplog.text
    assert caplog.text.count("loading flowers@3") == 1, "the model is not loaded again"
    assert "load-error" not in worker.instance.meta


async def test_labels_that_do_not_fit_are_told_of_and_not_used(tmp_path, serve, ask, order, caplog):
    folder = write_version(tmp_path / "flowers", 3)
    worker = await serve(tmp_path / "flowers", alone=True)

    def told(text: str):
        return lambda: text in worker.instance.meta.get("load-error", "")

    for content, text in (
        ("a\nb\nc\n", "there are 3 labels, but the model gives 2 scores; the labels stay"),
        ("a\n\nb\n", "labels.txt must have one label on every line"),
        (None, "there are no labels any more, but the model gives 2 scores; the labels stay"),
    ):
        if content is None:
            (folder / "labels.txt").unlink()
        else:
            (folder / "labels.txt").write_text(content)
        await until(told(text))
        assert text in caplog.text
        assert await ask(worker, "flowers") == ("3", "v3")
        listed = (await order(worker, "GET", ""))[1]["models"][0]
        assert text in listed["problems"][0]
        assert text in listed["versions"][0]["error"]
    (folder / "labels.txt").write_text("a\nb\n")
    await until(lambda: "load-error" not in worker.instance.meta)
    assert await ask(worker, "flowers") == ("3", "b")


async def test_other_files_that_change_are_told_of(tmp_path, serve, ask, caplog):
    folder = write_version(tmp_path / "flowers", 3)
    worker = await serve(tmp_path / "flowers", alone=True)
    (folder / "weights").write_text("new")
    await until(lambda: "flowers@3: its files have changed, but not its labels" in caplog.text)
    assert await ask(worker, "flowers") == ("3", "v3")
    assert "load-error" not in worker.instance.meta


async def test_a_class_with_labels_of_its_own(tmp_path, serve, ask):
    """They count until there is a labels file, and again when it has gone."""
    folder = write_version(tmp_path / "flowers", 3)
    (folder / "labels.txt").unlink()
    code = folder / "answers.py"
    code.write_text(code.read_text().replace("encoded", "labels = 'own', 'mine'; encoded"))
    worker = await serve(tmp_path / "flowers", alone=True)
    assert await ask(worker, "flowers") == ("3", "mine")
    for content, expected in (("a\nb\n", "b"), (None, "mine")):
        if content is None:
            (folder / "labels.txt").unlink()
        else:
            (folder / "labels.txt").write_text(content)

        async def answered(label: str = expected) -> bool:
            return await ask(worker, "flowers") == ("3", label)

        await until(answered)
        assert "load-error" not in worker.instance.meta
