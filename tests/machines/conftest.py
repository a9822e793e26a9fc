"""Machines with systemd for `make test-machines`; needs root on Linux."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machines.load import Load
from tests.machines.machine import ROOT, Machines, make_layer, run
from tests.machines.playbooks import Release, build_wheel, build_wheelhouse
from tests.support.digits import write_digits
from tests.support.page_sections import write_section

__all__ = ["Rows", "cluster", "layer", "onnx_package", "release", "rows", "wheelhouse"]

_ROWS = pytest.StashKey["Rows"]()


class Rows:
    """What was broken, and what came of it, for the terminal and for docs/faults.md."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, fault: str, load: Load, measured: str) -> None:
        """Add one, and fail the test if an image failed."""
        self.lines.append(f"| {fault} | {load.done:,} | {load.failed} (0) | {measured} |")
        print(f"{fault}: {load}; {measured}")
        assert load.failed == 0, load.errors


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = Rows()


def pytest_terminal_summary(config: pytest.Config) -> None:
    lines = config.stash[_ROWS].lines
    if (path := os.environ.get("FAULTS_REPORT")) and lines:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        head = [
            "`make test-machines` does this to three machines with systemd on a bridge, which the",
            "Ansible collection has made: a Consul server and a worker on each, a proxy on two. "
            "They are upgraded from the release of an earlier commit.",
            f"One client sends images one after the other. Measured {day}, with "
            f"{os.getloadavg()[2] / (os.cpu_count() or 1):.1f} times as much to do as there were "
            "cores.",
            "",
            "| fault | images | failed | measured (at most) |",
            "|---|---|---|---|",
        ]
        write_section(Path(path), "Machines", [*head, *lines])


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Rows:
    """The rows of this session."""
    return request.config.stash[_ROWS]


@pytest.fixture(scope="session")
def onnx_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this checkout, with ONNX Runtime."""
    folder = tmp_path_factory.mktemp("package")
    run(ROOT / "deploy/systemd/build-deb", sys.executable, folder, "onnx", timeout_s=1200)
    (package,) = folder.glob("fingerpost-onnx_*.deb")
    return package


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def wheelhouse(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All wheels that machines need beside it."""
    return build_wheelhouse(tmp_path_factory.mktemp("wheelhouse"), release.wheel)


@pytest.fixture(scope="session")
def layer(consul_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a model, Consul and this checkout, installed."""
    layer = make_layer(tmp_path_factory.mktemp("layer"), consul_binary)
    model = write_digits(tmp_path_factory.mktemp("digits")).model
    shutil.copytree(model, layer / "srv/fingerpost/models/digits/1")
    return layer


@pytest.fixture(scope="module")
def cluster(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Three machines with `layer`, and a Consul server each. Nothing else is started there."""
    with Machines(tmp_path_factory.mktemp("machines"), 3, layer) as machines:
        for machine in machines.all:
            machine.start_consul(3, server=True)
        machines.all[0].until("curl -sf 127.0.0.1:8500/v1/status/leader | grep 8300")
        yield machines
