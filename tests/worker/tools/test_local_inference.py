"""A model in this process answers as a client gets it from a worker, whatever its task."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fingerpost.client import Client
from fingerpost.errors import BrokenImage, ConfigurationError, FingerpostError, ImageError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.local_inference import LocalInference
from tests.support.colours import LABELS, encoded
from tests.support.row_models import write_row_model
from tests.support.task_rig import serving_folder
from tests.support.vision_models import DETECTORS, PAIRS, SEGMENTERS, write_vision_model

pytestmark = pytest.mark.usefixtures("no_task_left")


def write(folder: Path, task: str) -> None:
    if task == "detection":
        write_vision_model(folder, DETECTORS, "python", task)
    elif task == "segmentation":
        write_vision_model(folder, SEGMENTERS, "python", task)
    else:
        softmax = '[output]\nactivation = "softmax"\n' if task == "classification" else ""
        sigmoid = '[output]\nactivation = "sigmoid"\n' if task == "multilabel" else ""
        write_row_model(folder, "python", f'task = "{task}"', softmax + sigmoid)
        if task != "embedding":
            (folder / "labels.txt").write_text("\n".join(LABELS))


TASKS = ("classification", "multilabel", "embedding", "regression", "detection", "segmentation")


@pytest.mark.parametrize("task", TASKS)
async def test_it_answers_as_a_worker_does(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "model"
    write(folder, task)
    image = encoded("green", (40, 30))
    async with (
        serving_folder(folder) as rig,
        Client(f"static://127.0.0.1:{rig.port}") as client,
        LocalInference(find_model(folder), LoadConfig(device="cpu")) as local,
    ):
        served = await client.infer(image, "model")
        here = await local.infer(image)
        assert type(here) is type(served)
        assert (here.model, here.version, local.task) == (served.model, served.version, task)
        assert here.elapsed_s > 0
        assert here.timings_ms is not None
        own = {"timings_ms", "elapsed_s", "worker", "address", "relay", "attempts"}
        for name in set(here.__struct_fields__) - own:
            mine, theirs = getattr(here, name), getattr(served, name)
            if isinstance(mine, np.ndarray):
                np.testing.assert_array_equal(mine, theirs)
            else:
                assert mine == theirs, name
        wanted = () if task in ("embedding", "detection", "segmentation") else LABELS
        assert local.labels in (wanted, LABELS)
        for bad in (b"", b"no image", image[:40]):
            with pytest.raises(ImageError):
                await local.infer(bad)


async def test_how_many_labels(tmp_path: Path) -> None:
    write(tmp_path, "classification")
    async with LocalInference(find_model(tmp_path, name="m"), LoadConfig(device="cpu")) as local:
        for top, count in ((1, 1), (2, 2), (0, 3), (999_999, 3)):
            answer = await local.infer(encoded("red"), top=top)
            assert len(msgspec.structs.asdict(answer)["predictions"]) == count
        with pytest.raises(BrokenImage):
            await local.infer(encoded("red", (900, 900))[:-100])


async def test_a_model_of_several_inputs_and_one_that_is_not_loaded(tmp_path: Path) -> None:
    write_vision_model(tmp_path / "pair", PAIRS, "python", "tensors")
    local = LocalInference(find_model(tmp_path / "pair"), LoadConfig(device="cpu"))
    with pytest.raises(FingerpostError, match="not loaded"):
        await local.infer(b"")
    with pytest.raises(ConfigurationError, match="several inputs .left, right, weights., not one"):
        async with local:
            pass
