"""Datasets of PyTorch in its DataLoader, with and without worker processes, on a real cluster."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from tests.support.colours import LABELS, RGB, encoded
from tests.support.later import later

from fingerpost.client import SyncClient
from fingerpost.errors import ConfigurationError, EmptyImage

if TYPE_CHECKING:
    import torch
    from tests.support import torch_datasets as datasets
    from torch.utils import data

    from fingerpost.client.adapters import torch as adapter
else:
    torch = later("torch")
    datasets = later("tests.support.torch_datasets")
    data = later("torch.utils.data")
    adapter = later("fingerpost.client.adapters.torch")


@pytest.fixture
def client(colours: str) -> Iterator[SyncClient]:
    with SyncClient(colours) as client:
        yield client


def test_an_item(client: SyncClient) -> None:
    dataset = adapter.ClassifiedDataset(datasets.Pictures(), client, "colours")
    assert len(dataset) == 24
    (pixels, target), label, score, error = dataset[1]
    assert pixels.shape == (3, 20, 30)
    assert (target, label, error) == (1, "green", "")
    assert score > 0.9


@pytest.mark.parametrize(
    ("start", "workers"), [(None, 0), ("fork", 2), ("spawn", 1)], ids=["here", "fork", "spawn"]
)
def test_batches(client: SyncClient, start: str | None, workers: int) -> None:
    client.classify(encoded("red"), "colours")  # it has a thread, which no fork takes along
    loader = data.DataLoader(
        adapter.ClassifiedDataset(datasets.Pictures(), client, "colours"),
        batch_size=8,
        num_workers=workers,
        multiprocessing_context=start,
    )
    seen = []
    for (pixels, targets), labels, scores, errors in loader:
        assert pixels.shape == (8, 3, 20, 30)
        assert labels == tuple(LABELS[target % 3] for target in targets)
        assert scores.dtype == torch.float64
        assert scores.min() > 0.9
        assert errors == ("",) * 8
        seen += targets.tolist()
    assert seen == list(range(24))
    assert client.stats.attempts == (1 if workers else 25)
    assert client.classify(encoded("blue"), "colours").label == "blue"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterable_dataset_and_an_image_that_is_none(client: SyncClient, workers: int) -> None:
    dataset = adapter.ClassifiedIterableDataset(datasets.Numbered(), client, "colours")
    loader = data.DataLoader(dataset, batch_size=None, num_workers=workers)
    items: list[adapter.Classified[bytes]] = list(loader)
    assert len(items) == 24
    [failed] = [each for each in items if each.error]
    assert (failed.item, failed.label) == (b"", "")
    assert math.isnan(failed.score)
    assert failed.error.startswith("empty_image: ")
    for label in LABELS:
        assert sum(each.label == label for each in items) == (7 if label == "red" else 8)
        assert all(each.item == encoded(label) for each in items if each.label == label)


def test_an_error_is_raised_where_that_is_wanted(client: SyncClient) -> None:
    dataset = adapter.ClassifiedIterableDataset(
        datasets.Numbered(), client, "colours", on_error="raise"
    )
    with pytest.raises(EmptyImage):
        list(dataset)
    with pytest.raises(ConfigurationError):
        adapter.ClassifiedDataset(
            datasets.Pictures(),
            client,
            "colours",
            on_error="ignore",  # type: ignore[arg-type]
        )


KINDS: dict[str, Callable[[], Any]] = {
    "uint8": lambda: datasets.picture("blue"),
    "0 to 1": lambda: datasets.picture("blue") / 255,
    "half": lambda: (datasets.picture("blue") / 255).bfloat16(),
    "of a graph": lambda: (datasets.picture("blue") / 255).requires_grad_(),
    "PIL": lambda: Image.new("RGB", (30, 20), RGB["blue"]),
    "a list": lambda: [encoded("blue"), 5],
    "normalised": lambda: datasets.picture("blue") / 128 - 1,
    "rows first": lambda: datasets.picture("blue").permute(1, 2, 0),
    "nothing": lambda: torch.empty(3, 0, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_can_be_seen_is_sent_as_it_is_seen(client: SyncClient, kind: str) -> None:
    _, label, _, error = adapter.ClassifiedDataset([KINDS[kind]()], client, "colours")[0]
    if kind in {"normalised", "rows first", "nothing"}:
        assert error.startswith("unsupported_image: ")
    else:
        assert (label, error) == ("blue", "")


def test_one_channel(client: SyncClient) -> None:
    grey = torch.full((20, 30), 0.5)
    for each in (grey, grey[None]):
        assert adapter.ClassifiedDataset([each], client, "colours")[0].score == pytest.approx(1 / 3)


def test_the_example(colours: str, tmp_path: Path) -> None:
    for colour in LABELS:
        (tmp_path / f"{colour}.png").write_bytes(encoded(colour))
    run = subprocess.run(
        [sys.executable, "examples/torch_pipeline.py", colours, "colours", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    batch, *lines = run.stdout.splitlines()
    assert batch == "a batch (3, 3, 64, 64)"
    assert [line.split()[1] for line in lines] == ["blue", "green", "red"]
    assert run.stderr == ""
