"""What the fault rows share: a small model, the table, and two clusters that things happen to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.field import Field
from tests.faults.table import Table
from tests.support.colours import build
from tests.support.consul_process import ConsulProcess
from tests.support.processes import Processes

_MARK = "FINGERPOST_FAULTS_RUN"
_TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = Table()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the rows to the process that shows them, where tests run in several."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = session.config.stash[_TABLE].encode()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Take the rows of a process that has ended."""
    if rows := getattr(node, "workeroutput", {}).get("faults"):
        node.config.stash[_TABLE].add(rows)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash[_TABLE]
    if not table.rows:
        return
    terminalreporter.section("faults")
    for line in table.lines():
        terminalreporter.write_line(line)
    if path := os.environ.get("FAULTS_REPORT"):
        table.write(Path(path))


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest, consul_binary: str) -> Table:
    table = request.config.stash[_TABLE]
    version = subprocess.run(
        [consul_binary, "version"], capture_output=True, text=True, check=True
    ).stdout
    table.consul = version.splitlines()[0].removeprefix("Consul v")
    return table


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of nine weights, so that the machine's time goes to the cluster."""
    return build(tmp_path_factory.mktemp("model")).saved_model


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Starts `fingerpost` processes; ends them, and those that they started, with the session."""
    folder = tmp_path_factory.mktemp("faults")
    os.environ[_MARK] = str(folder)
    try:
        with Processes(folder) as processes:
            yield processes
    finally:
        del os.environ[_MARK]
        for process in _marked(str(folder)):
            process.kill()


@pytest.fixture(scope="session")
def agent(consul_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulProcess]:
    """One development agent, which keeps nothing when it is restarted."""
    agent = ConsulProcess(consul_binary, tmp_path_factory.mktemp("agent") / "consul.log")
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture(scope="session")
def field(processes: Processes, model: Path, agent: ConsulProcess) -> Field:
    """Workers and a proxy at the single agent. Each row asks for what it needs by `ready`."""
    return Field(processes, model, agent.url)


def _marked(value: str) -> list[psutil.Process]:
    """Our processes that inherited the mark in their environment: a proxy's successors."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == value:
                found.append(process)
        except psutil.Error:
            continue
    return found
