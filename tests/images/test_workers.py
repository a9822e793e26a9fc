"""Two workers of each image and a proxy, with the least rights, in one network of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from tests.images.conftest import TARGETS
from tests.images.engines import Podman, image
from tests.images.strict import (
    FRAMEWORKS,
    MODEL,
    RIGHTS,
    STRICT,
    temporary_files,
    write_model,
)
from tests.support.colours import encoded
from tests.support.vision_models import DETECTORS, LABELS, write_vision_model
from tests.support.waiting import until_blocking

pytestmark = pytest.mark.system

_REGISTRY = "http://127.0.0.1:12481"
_PORTS = (12490, 12491)
_ZMQ = 200  # above the port of HTTP
# A user's program: a file, and an array, which goes through shared memory where it can.
_PROGRAM = """
import sys
import numpy as np
from fingerpost.client import ClientConfig, SyncClient

with SyncClient("http://127.0.0.1:12480", config=ClientConfig(transport=sys.argv[1])) as client:
    print(client.classify("/images/red/0.jpg", "colours").label)
    print(client.classify(np.full((40, 30, 3), (10, 10, 250), np.uint8), "colours").label)
"""


class Pair(NamedTuple):
    """The containers `NAME-registry`, `NAME-proxy` and `NAME-PORT`, two workers of one image."""

    podman: Podman
    target: str
    folder: Path

    def start(self, name: str, target: str, *command: object) -> None:
        """One more container in their network, which goes on."""
        self.podman("run", "-d", "--name", self.name(name), *self.given(), image(target), *command)

    def once(self, *command: object, options: tuple[str, ...] = ()) -> str:
        """What a container of the target in their network prints."""
        whole = ("run", "--rm", *self.given(), *options, image(self.target), *command)
        return self.podman(*whole).stdout

    def worker(self, port: int) -> None:
        self.start(
            str(port),
            self.target,
            *("worker", "--models", "/models", "--registry", _REGISTRY, "--port", port),
            *("--zmq-port", port + _ZMQ, "--uds", f"/run/fingerpost/{port}.sock"),
            *("--access-log", "-"),
        )

    def name(self, name: object) -> str:
        return f"{self.target}-{name}"

    def given(self) -> tuple[object, ...]:
        folder = self.folder
        network = f"container:{self.name('registry')}"
        return (
            *(*STRICT, *temporary_files(self.target), "--network", network),
            *("-v", f"{folder / 'models'}:/models:ro", "-v", f"{folder / 'images'}:/images:ro"),
            *("-v", f"{folder / 'sockets'}:/run/fingerpost"),
        )

    def ready(self) -> bool:
        """Whether both workers can be found."""
        asked = ("exec", self.name("proxy"), "fingerpost", "resolve", MODEL, "--json")
        found = self.podman(*asked, check=False)
        known = json.loads(found.stdout)["instances"] if found.returncode == 0 else []
        return {each["ports"]["http"] for each in known} == set(_PORTS)


@pytest.fixture(scope="module", params=[each for each in TARGETS if each in FRAMEWORKS])
def pair(
    built: Podman, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    target: str = request.param
    folder = tmp_path_factory.mktemp(target)
    folder.chmod(0o755)
    write_model(FRAMEWORKS[target], folder / "models")
    write_vision_model(folder / "detector", DETECTORS, FRAMEWORKS[target], "detection")
    for colour in ("red", "blue"):
        (folder / "images" / colour).mkdir(parents=True)
        for number in range(4):
            data = encoded(colour, size=(40 + number, 30), form="JPEG")
            (folder / "images" / colour / f"{number}.jpg").write_bytes(data)
    write_boxes(folder)
    (folder / "sockets").mkdir()
    os.chown(folder / "sockets", 65532, 65532)
    pair = Pair(built, target, folder)
    names = [pair.name(each) for each in (*_PORTS, "proxy", "registry")]
    try:
        built(
            *("run", "-d", "--name", pair.name("registry"), *STRICT, "--network", "none"),
            *(image("core"), "registry"),
        )
        pair.start("proxy", "core", "proxy", "--registry", _REGISTRY)
        for port in _PORTS:
            pair.worker(port)
        try:
            until_blocking(pair.ready, within_s=300, every_s=1)
        except AssertionError:
            pytest.fail("\n".join(built("logs", name, check=False).stderr for name in names))
        yield pair
    finally:
        for each in names:  # the registry last: the others are in its network
            built("rm", "-f", each, check=False)


def write_boxes(folder: Path) -> None:
    """Images with a red and a blue rectangle, and their boxes in COCO's form."""
    photos = folder / "photos"
    photos.mkdir()
    boxes = {"red": (4, 6, 20, 30), "blue": (24, 24, 44, 40)}
    said: dict[str, Any] = {"images": [], "annotations": []}
    said["categories"] = [{"id": number, "name": name} for number, name in enumerate(LABELS, 1)]
    for number in range(3):
        drawn = Image.new("RGB", (48, 48))
        said["images"].append({"id": number, "file_name": f"{number}.png"})
        for colour, (left, top, right, bottom) in boxes.items():
            drawn.paste(colour, (left, top, right, bottom))
            box = [left, top, right - left, bottom - top]
            about = {"category_id": LABELS.index(colour) + 1, "bbox": box}
            said["annotations"].append({"image_id": number, **about})
        drawn.save(photos / f"{number}.png")
    (folder / "boxes.json").write_text(json.dumps(said), "utf-8")


def test_processes_have_no_rights_and_no_place_to_write(pair: Pair) -> None:
    for port in _PORTS:
        said = pair.podman("exec", pair.name(port), "python3", "-c", RIGHTS).stdout
        lines = {tuple(line.split()) for line in said.splitlines()}
        assert {("Uid", *["65532"] * 4), ("CapEff", "0" * 16), ("NoNewPrivs", "1")} <= lines
        assert {("cannot", "/", "EROFS"), ("cannot", "/opt/fingerpost", "EROFS")} <= lines
        assert ("cannot", "/models", "EROFS") in lines


def test_the_health_check_finds_the_worker(pair: Pair) -> None:
    (about,) = json.loads(pair.podman("image", "inspect", image(pair.target)).stdout)
    kind, *command = about["Healthcheck"]["Test"]
    assert kind == "CMD"
    said = pair.podman("exec", pair.name(_PORTS[0]), *command).stdout
    assert f"port {_PORTS[0]}: HTTP/1.1 200" in said


def test_zeromq(pair: Pair) -> None:
    assert program(pair, "zmq").split() == ["red", "blue"]


def test_a_client_in_another_container_uses_the_unix_socket(pair: Pair) -> None:
    """And shared memory for an array, whose descriptor goes through the socket beside it."""
    seen = [len(requests(pair, port)) for port in _PORTS]
    assert program(pair, "http").split() == ["red", "blue"]

    def fresh() -> list[dict[str, Any]]:
        return [
            each
            for port, before in zip(_PORTS, seen, strict=True)
            for each in requests(pair, port)[before:]
            if each["path"].startswith("/v1/classify")
        ]

    until_blocking(lambda: len(fresh()) == 2)
    assert {each["client"] for each in fresh()} == {"uid 65532"}


def program(pair: Pair, transport: str) -> str:
    return pair.once("-c", _PROGRAM, transport, options=("--entrypoint", "python3"))


def requests(pair: Pair, port: int) -> list[dict[str, Any]]:
    """The access log of a worker."""
    lines = pair.podman("logs", pair.name(port)).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_models_are_evaluated(pair: Pair) -> None:
    """A model's folder, by its framework in the image, without a network."""
    done = alone(
        pair,
        *("evaluate", "--model", f"/test/models/{MODEL}", "--images", "/test/images"),
        *("--min-top1", "1", "--json", "-"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["local"], report["answered"], report["failed"]) == (True, 8, [])
    done = alone(
        pair,
        *("evaluate", "--model", "/test/detector", "--images", "/test/photos"),
        *("--annotations", "/test/boxes.json", "--min-map", "0.99", "--json", "-"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["task"], report["answered"]) == ("detection", 3)


def alone(pair: Pair, *command: object) -> subprocess.CompletedProcess[str]:
    """A command of the target in a container without a network, with the folder as /test."""
    given = (*temporary_files(pair.target), "--network", "none", "-v", f"{pair.folder}:/test:ro")
    return pair.podman("run", "--rm", *STRICT, *given, image(pair.target), *command, check=False)


def test_a_machine_without_a_gpu_is_named(pair: Pair) -> None:
    done = alone(pair, "worker", "--models", "/test/models", "--device", "cuda:0")
    assert done.returncode == 1
    assert "--device cuda:0: there is no such GPU here" in done.stderr
    assert "Traceback" not in done.stderr
    assert "no NVIDIA GPU: models run on the CPU" in alone(pair, "doctor").stdout


def test_models_are_measured(pair: Pair) -> None:
    said = pair.once(
        *("model", "bench", f"/models/{MODEL}", "--images", "/images/red"),
        *("--seconds", "1", "--batch-sizes", "1,4", "--threads", "1", "--json"),
    )
    report = json.loads(said)
    assert FRAMEWORKS[pair.target] in report["best_throughput"]["candidate"]["framework"]
    assert {each["batch"] for each in report["measurements"]} == {1, 4}
    assert report["best_latency"]["images_s"] > 0


def test_a_stop_under_load_fails_nothing(pair: Pair) -> None:
    """Each worker is stopped and started again while 30 images/s come in."""
    podman = pair.podman
    pair.start(
        "load",
        "core",
        *("bench", MODEL, "/images", "--rate", "30", "--seconds", "900", "--warm-up", "1"),
        *("--json", "-"),
    )
    load = pair.name("load")
    try:
        for port in _PORTS:
            name = pair.name(port)
            podman("stop", "-t", "60", name)
            assert state(podman, name)["ExitCode"] == 0, podman("logs", name).stderr[-2000:]
            assert "draining" in podman("logs", name).stderr
            podman("start", name)
            until_blocking(pair.ready, within_s=120, every_s=0.5)
            assert state(podman, load)["Running"], podman("logs", load).stderr[-2000:]
        podman("kill", "--signal", "INT", load)  # it ends the measurement, and prints it
        assert podman("wait", load).stdout.strip() == "0"
        report = json.loads(podman("logs", load).stdout)
    finally:
        podman("rm", "-f", load, check=False)
    assert report["failed"] == 0, report["errors"]
    assert report["answered"] + report["unfinished"] == report["sent"]
    assert len(report["workers"]) == 2


def state(podman: Podman, name: str) -> dict[str, Any]:
    (about,) = json.loads(podman("container", "inspect", name).stdout)
    return about["State"]
