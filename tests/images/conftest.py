"""The images, built once for the session, and a cluster of them on Docker's engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.images.engines import ROOT, Docker, Podman, image
from tests.support.colours import encoded
from tests.support.waiting import until_blocking

PORT = 12480
# Others than these take gigabytes, and minutes: `make test-images TARGETS="core torch"`.
TARGETS: Final = os.environ.get("TARGETS", "core xds onnx").split()


class Cluster(NamedTuple):
    """What compose.yaml starts, with two workers of the model `colours`."""

    docker: Docker
    settings: dict[str, str]

    def workers(self) -> list[str]:
        """The names of the containers of workers that run."""
        wanted = "label=com.docker.compose.service=worker"
        listed = self.docker("ps", "--filter", wanted, "--format", "{{.Names}}").stdout
        return sorted(listed.split())

    def known(self) -> list[dict[str, Any]]:
        """The workers that the proxy tells of."""
        answer = self.docker.get(f"http://127.0.0.1:{PORT}/v1/resolve/colours")
        return json.loads(answer)["instances"] if answer else []

    def command(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `fingerpost` command in a container of the image `core`, as strict as the others."""
        return self.docker(
            "run", "--rm", *STRICT, *self.where(), image_here("core"), *arguments, check=check
        )

    def where(self) -> tuple[str, ...]:
        return ("--network", "test_default", "-v", f"{self.settings['IMAGES']}:/images:ro")


STRICT = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")


def image_here(target: str) -> str:
    """The name of an image in Docker's engine."""
    return image(target).removeprefix("localhost/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test builds images, which takes minutes where nothing is cached."""
    for item in items:
        item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def podman() -> Podman:
    return Podman()


@pytest.fixture(scope="session")
def built(podman: Podman) -> Podman:
    """podman, which has the images of this checkout."""
    for target in dict.fromkeys(("core", "xds", "onnx", *TARGETS)):
        podman.build(target)
    return podman


@pytest.fixture(scope="session")
def cluster(built: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Consul, a proxy, two workers and Prometheus, started by compose.yaml."""
    from tests.support.builders import onnx

    folder = tmp_path_factory.mktemp("docker")
    models, images = folder / "models", folder / "images"
    (models / "colours" / "1").mkdir(parents=True)
    onnx.channels_first(models / "colours" / "1")
    images.mkdir()
    for colour in ("red", "green", "blue"):
        (images / f"{colour}.png").write_bytes(encoded(colour, size=(400, 300)))
        (images / f"{colour}.jpg").write_bytes(encoded(colour, form="JPEG"))
    folder.chmod(0o755)
    with Docker(folder).running() as docker:
        settings = {
            "MODELS": str(models),
            "IMAGES": str(images),
            "FINGERPOST_IMAGE": image_here("core").removesuffix(":core"),
            **hand_over(built, docker),
        }
        docker.compose("up", "-d", "--scale", "worker=2", settings=settings)
        cluster = Cluster(docker, settings)
        try:
            until_blocking(lambda: len(cluster.known()) == 2, within_s=120, every_s=0.5)
        except AssertionError:
            pytest.fail(docker.compose("logs", "--no-color", settings=settings).stdout[-6000:])
        yield cluster


def hand_over(built: Podman, docker: Docker) -> dict[str, str]:
    """Give Docker's engine what compose.yaml starts; returns its variables for the other images."""
    consul, prometheus = binary("deploy/consul/get-consul"), binary("tests/support/get-prometheus")
    for tag in (
        image("core"),
        image("xds"),
        image("onnx"),
        built.build_around("consul", consul, "/consul/data", user="100:1000"),
        built.build_around("prometheus", prometheus, "/prometheus"),
    ):
        built.hand_over(tag, docker)
    return {"CONSUL_IMAGE": image_here("consul"), "PROMETHEUS_IMAGE": image_here("prometheus")}


def binary(script: str) -> Path:
    done = subprocess.run([ROOT / script], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr)
    return Path(done.stdout.strip())
