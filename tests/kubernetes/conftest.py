"""Helm and kubectl, what the chart renders, and one node with the images that run on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.table import Table
from tests.images.engines import BASE, Podman, image
from tests.kubernetes.node import Node
from tests.support.colours import encoded

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "kubernetes" / "chart"
Objects = dict[tuple[str, str], dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test downloads and builds, which takes minutes where nothing is cached."""
    for item in items:
        item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder with helm, kubectl and kubernetes-validate. Where none can be had tests fail."""
    done = subprocess.run(
        [ROOT / "tests" / "support" / "get-helm"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(done.stderr)
    return Path(done.stdout.strip())


class Helm:
    """Helm's commands on the chart."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(each) for each in (self.program, *arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def render(self, values: dict[str, Any] | None = None, *options: str) -> str:
        """The manifests of a release `fingerpost` in the namespace `vision`."""
        command = [
            str(self.program),
            "template",
            "fingerpost",
            str(CHART),
            "-n",
            "vision",
            *options,
        ]
        done = subprocess.run(
            [*command, "-f", "-"],
            input=yaml.safe_dump(values or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(done.stderr)
        return done.stdout

    def objects(self, values: dict[str, Any] | None = None, *options: str) -> Objects:
        """The rendered objects by kind and name."""
        return by_name(self.render(values, *options))


def by_name(text: str) -> Objects:
    """The objects in YAML by kind and name."""
    return {
        (each["kind"], each["metadata"]["name"]): each
        for each in yaml.safe_load_all(text)
        if each is not None
    }


@pytest.fixture(scope="session")
def helm(tools: Path) -> Helm:
    return Helm(tools / "helm")


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., Objects]:
    return helm.objects


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """What was measured; `KUBERNETES_REPORT=FILE` writes it."""
    table = Table()
    yield table
    text = "\n".join(table.lines())
    print(f"\n{text}")
    if path := os.environ.get("KUBERNETES_REPORT"):
        Path(path).write_text(page(table))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "red.jpg"
    path.write_bytes(encoded("red", form="JPEG"))
    return path


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The images of this checkout, one with models, Prometheus, and that which pods start with."""
    from tests.support.builders import onnx

    podman, folder = Podman(), tmp_path_factory.mktemp("images")
    for target in ("core", "onnx"):
        podman.build(target)
    models = folder / "models"
    for name in ("colours", "flowers"):
        (models / name / "1").mkdir(parents=True)
        onnx.channels_first(models / name / "1")
    pause = folder / "pause"
    source = Path(__file__).with_name("pause.c")
    subprocess.run(["gcc", "-static", "-Os", "-o", pause, source], check=True)
    add(podman, "models", BASE, models, "/models")
    add(podman, "pause", "scratch", pause, "/pause", "--entrypoint", '["/pause"]')
    got = subprocess.run(
        [ROOT / "tests/support/get-prometheus"], capture_output=True, text=True, check=False
    )
    if got.returncode:
        pytest.fail(got.stderr)
    podman.build_around("prometheus", Path(got.stdout.strip()), "/prometheus")
    made = []
    for name in ("core", "onnx", "models", "pause", "prometheus"):
        made.append(folder / f"{name}.tar")
        podman("save", "--quiet", "-o", made[-1], image(name))
    return made


def add(podman: Podman, name: str, base: str, source: Path, target: str, *config: str) -> None:
    container = podman.buildah("from", base).stdout.strip()
    podman.buildah("copy", container, source, target)
    if config:
        podman.buildah("config", *config, container)
    podman.buildah("commit", "--quiet", "--rm", "--format", "docker", container, image(name))


@pytest.fixture(scope="session")
def node(
    tools: Path, archives: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A whole node for all modules; each works in a namespace of its own, and removes it."""
    node = Node(tmp_path_factory.mktemp("node"), tools, image("pause"))
    try:
        node.start()
        for archive in archives:
            node.load_image(archive)
        # As the documents name them.
        for name in ("core", "onnx"):
            node.tag_image(image(name), f"registry.example/fingerpost:{name}")
        node.tag_image(image("models"), "registry.example/models:1")
        node.tag_image(image("prometheus"), "docker.io/prom/prometheus:v3.1.0")
        yield node
    finally:
        node.stop()


def page(table: Table) -> str:
    """docs/faults-kubernetes.md."""
    text = table.markdown()
    rows = text[text.index("| | fault |") :]
    measured = text[text.index("Measured ") : text.index(", Consul")]
    return f"""# What happens on Kubernetes

Each row is a test on a whole node of Kubernetes 1.20 (control plane, kubelet, containerd) with the
Helm chart, real images and pods, while a client sends images without pause. The table has the
measured values and, in parentheses, the most that is allowed. `make test-kubernetes` runs the
tests; `KUBERNETES_REPORT=docs/faults-kubernetes.md` before it in the same line writes this page.

{measured}.

{rows}"""
