"""Whole clusters of real processes.

`demo` runs the demo once for the session: its figures are tested, and its model and images serve
the tests of speed and memory. `reader` reads the same images, and its workers start at once. The
other tests have `digits`, as light a model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.digits import Digits, write_digits, write_reader
from tests.support.processes import Processes, marked_processes
from tests.system.demo import Demo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that uses the demo waits for it: a minute, and more on a busy machine."""
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(360))


# The demo as a user starts it, but for 3 passes over the images instead of 12, which take half a
# minute of processor time: 98 % of the held-out images are right, of 95 that are asked.
_DEMO = (
    "from fingerpost.deploy.demo import demo; demo._EPOCHS = 3;"
    "from fingerpost.deploy.entry import main; main()"
)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    run = subprocess.run(
        [sys.executable, "-c", _DEMO, "demo", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "FINGERPOST_TEST_RUN": str(folder)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return Demo(
        figures=json.loads(run.stdout),
        text=run.stderr,
        model=folder / "models" / "digits",
        images=sorted((folder / "data" / "digits" / "held-out").glob("*/*.png")),
        left_behind=marked_processes(str(folder)),
    )


@pytest.fixture(scope="session")
def reader(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the demo's images without a framework."""
    train = demo.images[0].parents[2] / "train"
    return write_reader(tmp_path_factory.mktemp("reader"), train)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """A light model and its images, for what is no matter of a framework or of its scores."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Starts `fingerpost` processes, and ends them with the module."""
    with Processes(tmp_path_factory.mktemp("logs")) as processes:
        yield processes
