"""The cluster in a thread, the pytest fixture, the example, and what an import brings."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.waiting import until_blocking

from fingerpost.client import Client, SyncClient
from fingerpost.errors import ConfigurationError, ModelFailed, Overloaded
from fingerpost.testing import sync_fake_cluster
from fingerpost.testing.plugin import MakeCluster, fingerpost_cluster

pytestmark = pytest.mark.shell

__all__ = ["fingerpost_cluster"]  # a fixture

pytestmark = pytest.mark.shell


def test_a_cluster_in_a_thread() -> None:
    before = threading.active_count()
    with sync_fake_cluster({"flowers": "daisy"}) as cluster:
        assert cluster.registry_url != cluster.proxy_url
        (first,) = cluster.workers
        with SyncClient(cluster.proxy_url) as client, ThreadPoolExecutor(1) as pool:
            assert client.classify(b"image", "flowers").label == "daisy"
            assert [each.image for each in first.received] == [b"image"]
            first.pause()
            call = pool.submit(client.classify, b"image", "flowers")
            until_blocking(lambda: first.in_flight == 1)
            first.resume()
            assert call.result().label == "daisy"
            first.fail(ModelFailed("out of memory"), times=1)
            with pytest.raises(ModelFailed):
                client.classify(b"image", "flowers")
            first.delay_s = 0.1
            assert (client.classify(b"image", "flowers").elapsed_s >= 0.1, first.delay_s) == (
                True,
                0.1,
            )
            first.recover()
            second = cluster.add_worker({"flowers@2": "rose"}, zone="b")
            assert cluster.workers == [first, second]
            first.overload()
            assert client.classify(b"image", "flowers").worker == second.instances[0].id
            first.drain()
            assert first.draining
            cluster.settled()
            first.recover()
            first.restart()
            second.kill()
            cluster.settled()
            assert client.classify(b"image", "flowers").address in first.url
            cluster.stop_registry()
            cluster.stop_proxy()
            assert client.classify(b"image", "flowers").label == "daisy"
            cluster.start_registry()
            cluster.start_proxy()
            cluster.settled()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="within its `with` block"):
        cluster.settled()


def test_a_cluster_that_cannot_start() -> None:
    before = threading.active_count()
    cluster = sync_fake_cluster({"flowers": "daisy"})
    cluster._cluster._registry._host = "192.0.2.1"
    with pytest.raises(ConfigurationError, match="cannot listen"), cluster:
        pass
    assert threading.active_count() == before


def test_the_fixture(fingerpost_cluster: MakeCluster) -> None:
    one = fingerpost_cluster({"flowers": "daisy"}, workers=2)
    other = fingerpost_cluster({"flowers": "rose"})
    assert len(one.workers) == 2
    for cluster, label in ((one, "daisy"), (other, "rose")):
        with SyncClient(cluster.proxy_url) as client:
            assert client.classify(b"image", "flowers").label == label


async def test_the_fixture_in_an_event_loop(fingerpost_cluster: MakeCluster) -> None:
    cluster = fingerpost_cluster({"flowers": "daisy"})
    cluster.workers[0].fail(Overloaded("full", retry_after_s=0.01), times=1)
    async with Client(cluster.proxy_url) as client:
        result = await client.classify(b"image", "flowers")
    assert (result.label, result.attempts) == ("daisy", 2)


def test_an_import_brings_no_framework() -> None:
    code = (
        "import sys, fingerpost.testing; heavy = {'numpy', 'tensorflow', 'torch', 'onnxruntime', "
        "'cv2', 'pytest', 'fingerpost.worker'}; print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_without_numpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fingerpost.testing.serving", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "fingerpost.testing.backend", raising=False)
    with (
        pytest.raises(ConfigurationError, match=r"pip install 'fingerpost\[testing\]'"),
        sync_fake_cluster({"flowers": "daisy"}),
    ):
        pass


def test_the_example() -> None:
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "examples",
            "-W", "error::pytest.PytestAssertRewriteWarning",
            "-c", "/dev/null", "examples/test_sort_photos.py",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "4 passed" in run.stdout
