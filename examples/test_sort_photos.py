"""Test a program that uses Fingerpost: `pytest test_sort_photos.py`.

Needs `pip install 'fingerpost[testing]' pytest`. The program under test moves photos into folders
named after what they show. Its tests need no model and no running cluster: a real registry, proxy
and worker run inside the test, around a Python function.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fingerpost.client import SyncClient
from fingerpost.errors import BrokenImage, ModelFailed

if TYPE_CHECKING:  # pytest imports its plugins itself, and warns where a test did it before
    from fingerpost.testing.plugin import MakeCluster

pytest_plugins = ["fingerpost.testing.plugin"]


def sort_photos(folder: Path, client: SyncClient) -> None:
    """Move each photo into a folder named after its label; what fails stays where it is."""
    for result in client.stream(sorted(folder.glob("*.jpg")), "photos"):
        if result.error is None:
            target = folder / (result.label if result.score >= 0.5 else "unsure")
            target.mkdir(exist_ok=True)
            (folder / result.key).rename(target / Path(result.key).name)


def classify(image: bytes) -> list[tuple[str, float]]:
    """The model of these tests: it is sure of cats, and breaks on a broken image."""
    if image == b"broken":
        raise BrokenImage("this image ends too early")
    return [("cat", 0.98)] if image == b"a cat" else [("dog", 0.3), ("cat", 0.2)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos."""
    for name, image in (("1", b"a cat"), ("2", b"a shadow"), ("3", b"broken")):
        (tmp_path / f"{name}.jpg").write_bytes(image)
    return tmp_path


def files(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*.jpg"))


def test_photos_are_sorted(photos: Path, fingerpost_cluster: MakeCluster) -> None:
    cluster = fingerpost_cluster({"photos": classify})
    with SyncClient(cluster.proxy_url) as client:
        sort_photos(photos, client)
    assert files(photos) == ["3.jpg", "cat/1.jpg", "unsure/2.jpg"]


def test_each_photo_is_sent_once(photos: Path, fingerpost_cluster: MakeCluster) -> None:
    cluster = fingerpost_cluster({"photos": classify}, workers=3)
    with SyncClient(cluster.proxy_url) as client:
        sort_photos(photos, client)
    received = [each.image for worker in cluster.workers for each in worker.received]
    assert sorted(received) == [b"a cat", b"a shadow", b"broken"]


def test_a_dead_worker_is_no_trouble(photos: Path, fingerpost_cluster: MakeCluster) -> None:
    cluster = fingerpost_cluster({"photos": "cat"}, workers=2)
    cluster.workers[0].kill()
    with SyncClient(cluster.proxy_url) as client:
        sort_photos(photos, client)
    assert files(photos) == ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg"]


def test_what_fails_is_not_moved(photos: Path, fingerpost_cluster: MakeCluster) -> None:
    cluster = fingerpost_cluster({"photos": "cat"})
    cluster.workers[0].fail(ModelFailed("out of memory"))
    with SyncClient(cluster.proxy_url) as client:
        sort_photos(photos, client)
    assert files(photos) == ["1.jpg", "2.jpg", "3.jpg"]
