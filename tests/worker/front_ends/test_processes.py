"""A worker with two front ends, as real processes: to clients it is one worker."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from fingerpost.client import Client
from fingerpost.security.caller import ANYBODY
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner
from tests.support.leases import lease
from tests.support.pictures import save
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Process, Processes, get_json
from tests.support.sleeper import Sleeper
from tests.support.waiting import until, until_blocking

pytestmark = pytest.mark.system

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
IMAGES = {name: save(Image.new("RGB", (32, 32), each), "JPEG") for name, each in COLOURS.items()}
# Two cores start four processes, beside other tests.
START_S = 90.0


class Place:
    """A registry and a worker with two front ends, whose model sleeps."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.processes = processes
        self.model = Sleeper(folder / "colours", 0.001)
        self.registry = processes.registry()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.worker = self.start()

    def start(self, *options: str) -> Process:
        worker = self.processes.worker(
            self.registry,
            self.model.folder,
            *("--port", self.port, "--front-ends", 2, "--lease", 0.1, *options),
        )
        until_blocking(self.ready, "it is ready", within_s=START_S, every_s=0.1)
        return worker

    def ready(self) -> bool:
        return (get_json(f"{self.url}/health/ready") or {}).get("status") == "ready"

    def fronts(self) -> list[psutil.Process]:
        """The front ends that listen."""
        return [
            each
            for each in psutil.Process(self.worker.pid).children()
            if any(c.status == psutil.CONN_LISTEN for c in each.net_connections())
        ]

    def served(self, front: psutil.Process) -> set[int]:
        """The ports of clients whose connections a front end has."""
        return {c.raddr.port for c in front.net_connections() if c.raddr}

    def connections(self, stack: ExitStack) -> dict[int, list[http.client.HTTPConnection]]:
        """Open connections, until each front end has two."""
        found: dict[int, list[http.client.HTTPConnection]] = {}
        fronts = self.fronts()
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", "/load")
            connection.getresponse().read()
            port = connection.sock.getsockname()[1]
            owner = next(each.pid for each in fronts if port in self.served(each))
            found.setdefault(owner, []).append(connection)
            if len(found) == len(fronts) and all(len(each) > 1 for each in found.values()):
                return found
        raise AssertionError(f"100 connections, and not two at each front end: {found}")

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:  # noqa: S310 - loopback
            families = text_string_to_metric_families(answer.read().decode())
        return {
            sample.name: sample.value
            for family in families
            for sample in family.samples
            if sample.labels.get("model", "colours") == "colours"
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("front-ends")
    with Processes(folder) as processes:
        yield Place(folder, processes)


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Client]:
    async with Client(registry=place.registry) as client:
        yield client


def test_both_front_ends_answer_as_one_worker(place: Place) -> None:
    sent = 0
    before = place.metrics().get("fingerpost_worker_images_total", 0)
    reports = []
    with ExitStack() as stack:
        connections = place.connections(stack)
        assert len(connections) == 2
        for some in connections.values():
            for connection in some:
                for colour, image in IMAGES.items():
                    connection.request("POST", "/v1/classify/colours", image)
                    answer = json.load(connection.getresponse())
                    assert answer["results"][0]["predictions"][0][0] == colour
                    sent += 1
                connection.request("GET", "/load")
                reports.append(json.load(connection.getresponse()))
    assert {each["boot_id"] for each in reports} == {reports[0]["boot_id"]}
    numbers = [each["seq"] for each in reports]
    assert numbers == sorted(set(numbers)), "they grow, whichever front end answers"
    assert reports[-1]["images"] == before + sent
    assert place.metrics()["fingerpost_worker_images_total"] == before + sent


def test_every_front_end_tells_of_the_requests_of_all(place: Place) -> None:
    place.model.pace(1.5)
    try:
        with ExitStack() as stack:
            connections = place.connections(stack)
            (one, asker, *_), (other, second_asker, *_) = connections.values()
            for connection in (one, other):
                connection.request("POST", "/v1/classify/colours", IMAGES["red"])
            for each in (asker, second_asker):

                def rif(each: http.client.HTTPConnection = each) -> Any:
                    each.request("GET", "/load")
                    return json.load(each.getresponse())["rif"]

                until_blocking(lambda rif=rif: rif() == 2, "both are in flight")  # type: ignore[misc]
            assert place.metrics()["fingerpost_worker_in_flight_requests"] == 2
            for connection in (one, other):
                assert connection.getresponse().status == 200
            until_blocking(lambda: get_json(f"{place.url}/load")["rif"] == 0, "and none after")
    finally:
        place.model.pace(0.001)


async def test_a_front_end_that_is_killed_costs_no_image(place: Place, client: Client) -> None:
    before = place.metrics()["fingerpost_worker_images_total"]
    boot_id = get_json(f"{place.url}/load")["boot_id"]
    victim = (await asyncio.to_thread(place.fronts))[0]
    place.model.pace(0.05)
    names = [*IMAGES] * 30
    done = 0

    async def classify(name: str) -> None:
        nonlocal done
        result = await client.classify(IMAGES[name], "colours", timeout_s=START_S)
        assert result.predictions[0].label == name
        done += 1

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(classify(name))
        await until(lambda: done >= 5, "some are answered")
        victim.kill()
    place.model.pace(0.001)
    assert done == len(names)
    await until(lambda: asyncio.to_thread(lambda: len(place.fronts()) == 2), within_s=START_S)
    assert place.ready()
    assert get_json(f"{place.url}/load")["boot_id"] == boot_id
    assert place.metrics()["fingerpost_worker_images_total"] >= before, "no counter goes back"
    assert "ended by signal 9; starting it again" in place.worker.output()


def test_sigterm_drains_all_front_ends(place: Place) -> None:
    place.model.pace(1.0)
    fronts = place.fronts()
    with ExitStack() as stack:
        connections = [each[0] for each in place.connections(stack).values()]
        for connection in connections:
            connection.request("POST", "/v1/classify/colours", IMAGES["blue"])
        until_blocking(lambda: get_json(f"{place.url}/load")["rif"] == 2)
        place.worker.signal(signal.SIGTERM)
        for connection in connections:
            answer = connection.getresponse()
            assert answer.status == 200
            assert json.load(answer)["results"][0]["predictions"][0][0] == "blue"
    assert place.worker.wait(30) == 0
    assert not any(each.is_running() for each in fronts)
    assert get_json(f"{place.registry}/v1/health/service/colours") == []


def test_each_front_end_asks_for_a_lease(place: Place, tmp_path: Path) -> None:
    key = tmp_path / "lease.key"
    made = [*FINGERPOST, "keys", "init", "--key", str(key), "--registry", place.registry]
    subprocess.run(made, check=True, timeout=60, capture_output=True)
    signing = SigningKey.decode(key.read_bytes(), key)
    signer = LeaseSigner(lambda: signing, LeaseConfig(), time.time)
    token = signer.sign(ANYBODY, "colours").token
    place.model.pace(0.001)
    place.worker = place.start("--require-lease")
    with ExitStack() as stack:
        connections = [each[0] for each in place.connections(stack).values()]
        assert len(connections) == 2
        for connection in connections:
            for shown, status in ((None, 401), (lease("colours"), 401), (token, 200), (token, 200)):
                headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
                connection.request("POST", "/v1/classify/colours", IMAGES["green"], headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == status, "a lease of another key is none"


def test_front_ends_end_with_the_process_that_has_the_models(place: Place) -> None:
    if not place.ready():
        place.worker = place.start()  # on the same port
    fronts = place.fronts()
    assert len(fronts) == 2
    place.worker.signal(signal.SIGKILL)
    psutil.wait_procs(fronts, timeout=30)
    assert not any(each.is_running() for each in fronts)
