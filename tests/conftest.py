"""Fixtures for all rooms: a real Consul agent, and the check that no task is left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.consul_cluster import ConsulCluster
from tests.support.consul_process import ConsulProcess
from tests.support.kinds import QUICK, CoreGuard, has_quick_tests, kinds_of
from tests.support.parallel import ByGroup, Turns, folder_of, place_of
from tests.support.warm import install

# How long an example takes says nothing on a busy machine: limits on time are the tests' own.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("tests"), max_examples=20)
settings.load_profile("tests")

_TURNS = pytest.StashKey[Turns]()
_CORE_GUARD = CoreGuard()
_GET_CONSUL = Path(__file__).parent.parent / "deploy" / "consul" / "get-consul"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-kubernetes` runs the tests of that registry against a real API server."""
    parser.addoption("--kubernetes", choices=("fake", "real"), default="fake")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the markers of what it needs, and a place among several processes."""
    for item in items:
        for kind in sorted(kinds_of(item)):
            item.add_marker(kind)
    if items and hasattr(items[0].config, "workerinput"):
        items.sort(key=lambda item: place_of(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """Keep together what shares a fixture that takes long."""
    return ByGroup(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the time limit of a test begins afterwards
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Let the tests that measure speed have the machine to themselves."""
    alone, stays = (
        each is not None and each.get_closest_marker("alone") is not None
        for each in (item, nextitem)
    )
    with item.config.stash[_TURNS].turn(alone=alone, stays=stays):
        return (yield)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find what the processes of this run have in common: a folder.

    A shell lets what it runs in the background ignore SIGINT, and with it every process of a test.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    install()
    folder, several = folder_of(session.config)
    session.config.stash[_TURNS] = Turns(folder if several else None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the modules in which `make quick` would find nothing: importing them takes long."""
    if config.option.markexpr != QUICK or not collection_path.name.startswith("test_"):
        return None
    return None if has_quick_tests(collection_path) else True


@pytest.fixture(autouse=True)
def _core_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test of a core that opens a socket, starts something, sleeps or needs a framework."""
    if request.node.get_closest_marker("core") is None:
        _CORE_GUARD.remove()
        yield
    else:
        with _CORE_GUARD.guarding():
            yield


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fails a test that leaves an asyncio task running: every task has an owner that ends it."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left running: {sorted(task.get_name() for task in left)}"


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """Path of a `consul` binary. Where none can be had the test fails; it is never skipped."""
    run = subprocess.run([_GET_CONSUL], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout.strip()


@pytest.fixture(scope="session")
def consul_url(consul_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Consul agent that the whole session shares: use service names of your own."""
    process = ConsulProcess(consul_binary, tmp_path_factory.mktemp("consul") / "log")
    process.start()
    yield process.url
    process.stop()


@pytest.fixture
def consul_process(consul_binary: str, tmp_path: Path) -> Iterator[ConsulProcess]:
    """A Consul agent of the test's own, not yet started, for tests that stop and restart it."""
    process = ConsulProcess(consul_binary, tmp_path / "consul.log")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def consul_cluster(
    consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """Three servers and a client agent that the session shares: leave all of them running."""
    with ConsulCluster(consul_binary, tmp_path_factory.mktemp("consul-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secured_cluster(
    consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """The same with ACLs, TLS and encrypted gossip; for the services `digits` and `cats`."""
    folder = tmp_path_factory.mktemp("secured-cluster")
    services = ("digits", "cats")
    with ConsulCluster(consul_binary, folder, secured=True, services=services) as cluster:
        yield cluster


@pytest.fixture
def consul_cluster_process(consul_binary: str, tmp_path: Path) -> Iterator[ConsulCluster]:
    """A plain cluster of the test's own, not yet started, for tests that kill and freeze."""
    cluster = ConsulCluster(consul_binary, tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for Unix sockets, whose paths have a limit that those of `tmp_path` may exceed."""
    with TemporaryDirectory(prefix="fingerpost-") as folder:
        yield Path(folder)
