"""Whole clusters of real processes.

`demo` runs the demo once for the session: its figures are tested, and its model and images serve
the tests of speed and memory. The other tests have `digits`, whose workers start at once.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.support.digits import Digits, write_digits
from tests.support.processes import FINGERPOST, Processes
from tests.system.demo import Demo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that uses the demo waits for it: a minute, and more on a busy machine."""
    for item in items:
        if "demo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(360))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    run = subprocess.run(
        [*FINGERPOST, "demo", "--json"],
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
        left_behind=_marked(str(folder)),
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """A light model and its images, for what is no matter of a framework or of its scores."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Starts `fingerpost` processes, and ends them with the module."""
    with Processes(tmp_path_factory.mktemp("logs")) as processes:
        yield processes


def _marked(value: str) -> list[str]:
    """Command lines of running processes that inherited our mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FINGERPOST_TEST_RUN") == value:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
