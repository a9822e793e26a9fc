"""Batches of every shape, in Dask with its schedulers, against a real cluster."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.support.colours import LABELS, encoded
from tests.support.later import later

from fingerpost.client import SyncClient
from fingerpost.client.adapters.batch import BatchMapper
from fingerpost.errors import ConfigurationError, EmptyImage, InvalidName

if TYPE_CHECKING:
    import dask.bag as bags
    import pandas as pd
else:
    bags = later("dask.bag")
    pd = later("pandas")

NONE = "unsupported_image: NoneType is not a supported image"


@pytest.fixture
def client(colours: str) -> Iterator[SyncClient]:
    with SyncClient(colours) as client:
        yield client


def test_columns(client: SyncClient) -> None:
    batch = {
        "picture": np.array([encoded("red"), None, encoded("blue")], dtype=object),
        "at": np.arange(3),
    }
    mapped = BatchMapper(client, "colours", column="picture")(batch)
    assert list(mapped) == ["picture", "at", "label", "score", "error"]
    assert list(batch) == ["picture", "at"]
    assert mapped["label"] == ["red", "", "blue"]
    assert mapped["score"][0] > 0.9
    assert math.isnan(mapped["score"][1])
    assert [each[: len(NONE)] for each in mapped["error"]] == ["", NONE, ""]


def test_a_column_of_pixels(client: SyncClient) -> None:
    pixels = np.zeros((3, 20, 30, 3), np.uint8)
    for at in range(3):
        pixels[at, :, :, at] = 255
    assert BatchMapper(client, "colours")({"image": pixels})["label"] == list(LABELS)
    assert BatchMapper(client, "colours")({"image": pixels[:0]})["label"] == []


def test_rows_and_images_alone(client: SyncClient, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(encoded("red"))
    rows = iter([{"image": encoded("green"), "id": 7}, {"image": path, "id": 8}])
    green, red = BatchMapper(client, "colours", prefix="p_")(rows)
    assert (green["id"], green["p_label"], green["p_error"]) == (7, "green", "")
    assert (red["id"], red["p_label"], red["image"]) == (8, "red", path)
    [one] = BatchMapper(client, "colours", column="path")([str(path)])
    assert (one["path"], one["label"]) == (str(path), "red")


def test_a_data_frame(client: SyncClient) -> None:
    frame = pd.DataFrame({"image": [encoded("red"), b""], "id": [7, 8]}, index=[70, 80])
    mapped = BatchMapper(client, "colours")(frame)
    assert list(mapped.index) == [70, 80]
    assert list(mapped["label"]) == ["red", ""]
    assert mapped["score"].dtype == np.float64
    assert mapped["error"][80].startswith("empty_image: ")
    assert list(frame) == ["image", "id"]


def test_an_error_is_raised_where_that_is_wanted(client: SyncClient) -> None:
    mapper = BatchMapper(client, "colours", on_error="raise")
    with pytest.raises(EmptyImage):
        mapper([encoded("red"), b""])


def test_what_makes_no_sense_is_said_before_anything_is_sent(client: SyncClient) -> None:
    with pytest.raises(InvalidName):
        BatchMapper(client, "no name")
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        BatchMapper(client, "colours", concurrency=0)
    with pytest.raises(ConfigurationError, match="no column 'image' among path"):
        BatchMapper(client, "colours")({"path": []})
    for labelled in ({"image": [], "label": []}, [{"image": b"", "label": 1}]):
        with pytest.raises(ConfigurationError, match="use prefix="):
            BatchMapper(client, "colours")(labelled)
    assert client.stats.attempts == 0


def test_a_copy_for_another_process(client: SyncClient) -> None:
    mapper = BatchMapper(client, "colours")
    assert mapper([encoded("red")])[0]["label"] == "red"
    copy = pickle.loads(pickle.dumps(mapper))  # noqa: S301 - our own
    client.close()
    assert copy([encoded("blue")])[0]["label"] == "blue"


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_in_a_bag(client: SyncClient, scheduler: str) -> None:
    colours = list(LABELS) * 10
    bag = bags.from_sequence(map(encoded, colours), npartitions=5)
    rows = bag.map_partitions(BatchMapper(client, "colours")).compute(scheduler=scheduler)
    assert [row["label"] for row in rows] == colours
    assert client.stats.attempts == 30


def test_the_example_with_a_process_for_each_partition(colours: str, tmp_path: Path) -> None:
    for colour in LABELS:
        (tmp_path / f"{colour}.png").write_bytes(encoded(colour))
    (tmp_path / "none.png").write_bytes(b"none")
    run = subprocess.run(
        [sys.executable, "-W", "error", "examples/dask_bag.py", colours, "colours", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = sorted(run.stdout.splitlines())
    assert [Path(line.split()[0]).name for line in lines] == [
        "blue.png",
        "green.png",
        "none.png",
        "red.png",
    ]
    assert [line.split()[1] for line in lines] == ["blue", "green", "unsupported_image:", "red"]
    assert run.stderr == ""
