"""Leases with real processes: keys made, rotated under load, and printed for other programs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from fingerpost.client import Client
from fingerpost.errors import LeaseRequired
from tests.support.colours import encoded
from tests.support.leases import claims_of
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until, until_blocking

IMAGE = encoded("red")
MODEL = """
import numpy as np


class Mean:
    labels = ["red", "green", "blue"]
    height = width = 16

    def predict(self, batch):
        return batch.mean((1, 2)).astype(np.float32) / 256
"""


# `fingerpost` whose rotation allows clocks to differ by 5 s instead of 35: here there is one clock.
ONE_CLOCK = (
    sys.executable,
    "-c",
    "from fingerpost.deploy.commands import keys; keys._SKEW_S = 5.0;"
    "from fingerpost.deploy.entry import main; main()",
)


def fingerpost(*arguments: object, program: tuple[str, ...] = FINGERPOST) -> str:
    done = subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Cluster:
    """Registry, proxy and worker, as an operator starts them."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        model = folder / "mean" / "1"
        model.mkdir(parents=True)
        (model / "mean.py").write_text(MODEL)
        (model / "model.toml").write_text('framework = "python"\nclass = "mean:Mean"\n')
        self.key = folder / "lease.key"
        registry, proxy, worker = free_port(), free_port(), free_port()
        self.registry = f"http://127.0.0.1:{registry}"
        self.proxy = f"http://127.0.0.1:{proxy}"
        self.worker = f"http://127.0.0.1:{worker}"
        processes.start("registry", "--port", str(registry))
        until_blocking(lambda: get_json(f"{self.registry}/v1/agent/services") is not None)
        fingerpost("keys", "init", "--key", self.key, "--registry", self.registry)
        at = "--registry", self.registry, "--port"
        life = "--lease-life", "10"
        self.processes = [
            processes.start("proxy", *at, str(proxy), "--lease-key", str(self.key), *life),
            processes.start(
                "worker", *at, str(worker), "--model", str(folder / "mean"), "--require-lease"
            ),
        ]
        until_blocking(lambda: get_json(f"{self.proxy}/v1/resolve/mean") is not None, within_s=90)


@pytest.fixture(scope="module")
def cluster(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(processes, tmp_path_factory.mktemp("leases"))


async def test_a_rotation_under_load_loses_nothing(cluster: Cluster) -> None:
    done = asyncio.Event()
    images = errors = 0

    async def load() -> None:
        nonlocal images, errors
        async with Client(cluster.proxy) as client:
            while not done.is_set():
                result = await anext(aiter(client.stream([IMAGE], "mean")))
                errors += result.error is not None
                images += 1
                await asyncio.sleep(0.05)  # without it two cores do nothing else for a minute
            assert client.stats.retries == {}

    loading = [asyncio.create_task(load()) for _ in range(4)]
    before = get_json(f"{cluster.proxy}/.well-known/jwks.json")["keys"]
    rotate = "keys", "rotate", "--key", cluster.key, "--registry", cluster.registry
    said = await asyncio.to_thread(
        fingerpost, *rotate, "--wait", "7", "--life", "11", program=ONE_CLOCK
    )
    assert "waiting 16 s" in said
    assert "withdrew" in said

    def changed() -> bool:
        keys = get_json(f"{cluster.proxy}/.well-known/jwks.json")["keys"]
        return len(keys) == 1 and keys != before

    await until(lambda: asyncio.to_thread(changed))
    done.set()
    await asyncio.gather(*loading)
    assert images > 100
    assert errors == 0


async def test_a_lease_is_printed_for_other_programs(cluster: Cluster, tmp_path: Path) -> None:
    token = fingerpost("lease", "mean", "--proxy", cluster.proxy).strip()
    assert claims_of(token)["aud"] == "mean"
    async with aiohttp.ClientSession() as http:
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
            async with http.post(f"{cluster.worker}/", data=IMAGE, headers=headers) as response:
                assert response.status == status


async def test_a_file_is_kept_fresh(cluster: Cluster, processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "lease"
    processes.start("lease", "mean", "--watch", str(file), "--proxy", cluster.proxy)
    await until(file.exists)
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    await until(lambda: file.read_text() != first)


async def test_a_command_beside_a_registry_takes_the_file(cluster: Cluster, tmp_path: Path) -> None:
    image, file = tmp_path / "red.png", tmp_path / "lease"
    image.write_bytes(IMAGE)
    file.write_text(fingerpost("lease", "mean", "--proxy", cluster.proxy))
    at = "--registry", cluster.registry
    assert "red" in fingerpost("classify", "--model", "mean", image, *at, "--lease-file", file)
    async with Client(registry=cluster.registry) as client:
        with pytest.raises(LeaseRequired, match="use a proxy's URL"):
            await client.classify(IMAGE, "mean")


async def test_no_process_writes_a_lease_into_its_log(cluster: Cluster) -> None:
    assert not [each.output() for each in cluster.processes if "eyJ" in each.output()]
