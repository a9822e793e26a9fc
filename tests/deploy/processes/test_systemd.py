"""Whole services under a service manager: a real Unix socket in systemd's place."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.digits import write_digits
from tests.support.notifications import Notifications
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST, Processes, get_json
from tests.support.waiting import until_blocking

from fingerpost.deploy.processes.handover import inherited_listener
from fingerpost.errors import ConfigurationError

pytestmark = pytest.mark.system

# What systemd does before it starts a service with a socket.
ACTIVATED = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)  # where it had that number already
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits")).model


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("logs")) as processes:
        yield processes


@pytest.fixture(scope="module")
def registry(processes: Processes) -> str:
    return processes.registry()


def under(systemd: Notifications, *program: str) -> tuple[str, ...]:
    variables = [f"{name}={value}" for name, value in systemd.environment.items()]
    return ("env", *variables, *program)


def healthy(registry: str) -> list[dict[str, Any]]:
    return get_json(f"{registry}/v1/health/service/digits?passing") or []


def test_a_worker_and_one_that_is_stopped(
    processes: Processes, registry: str, model: Path, tmp_path: Path
) -> None:
    """Two processes of one unit: READY once both are registered, and one that hangs is replaced."""
    with Notifications(tmp_path, watchdog_s=1.5) as systemd:
        worker = processes.start(
            *("worker", "--registry", registry, "--model", model, "--threads", 1),
            *("--devices", "none", "--processes-per-device", 2, "--lease", 0),
            program=under(systemd, *FINGERPOST),
        )
        until_blocking(lambda: systemd.count("READY=1"))
        assert len(healthy(registry)) == 2, "READY comes after the registration"
        until_blocking(lambda: systemd.status().startswith("2 of 2 processes ready; 0.cpu: "))
        assert "serving digits@1 at 127.0.0.1:" in systemd.status()
        fed = systemd.count("WATCHDOG=1")

        one, other = children(worker.pid)
        one.send_signal(signal.SIGSTOP)
        until_blocking(lambda: "has stalled for" in worker.output())
        until_blocking(lambda: not one.is_running())
        until_blocking(lambda: len(children(worker.pid)) == 2 and len(healthy(registry)) == 2)
        assert other.is_running()
        assert systemd.count("WATCHDOG=1") > fed, "the unit itself is at work"

        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert systemd.count("READY=1") == systemd.count("STOPPING=1") == 1
        assert systemd.status() == "draining 2 processes"


def test_a_worker_from_its_start_to_its_end(
    processes: Processes, registry: str, model: Path, tmp_path: Path
) -> None:
    with Notifications(tmp_path, watchdog_s=0.5) as systemd:
        worker = processes.start(
            *("worker", "--registry", registry, "--model", model, "--threads", 1, "--lease", 0.2),
            program=under(systemd, *FINGERPOST),
        )
        until_blocking(lambda: systemd.count("READY=1"))
        assert len(healthy(registry)) == 1
        until_blocking(lambda: systemd.count("WATCHDOG=1") >= 2)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        told = [each for each in systemd.received() if each != "WATCHDOG=1"]
        steps = ["waiting for the registry", "loading and warming up the models", "registering"]
        assert told[:3] == [f"STATUS={each}" for each in steps]
        assert told[3] == "READY=1"
        assert told[4].startswith("STATUS=serving digits@1 at 127.0.0.1:")
        assert told[5:7] == ["STOPPING=1", "STATUS=draining"]


def children(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children() if each.status() != "zombie"]


def test_a_proxy_takes_the_socket_of_systemd_and_hands_it_on(
    processes: Processes, registry: str, tmp_path: Path
) -> None:
    port = free_port()
    with Notifications(tmp_path) as systemd:
        proxy = processes.start(
            *("proxy", "--registry", registry, "--port", 1),  # where it may not listen for long
            program=under(systemd, sys.executable, "-c", ACTIVATED, str(port), *FINGERPOST),
        )
        until_blocking(lambda: systemd.count("READY=1"))
        assert get_json(f"http://127.0.0.1:{port}/health/live") == {"status": "live"}
        until_blocking(lambda: "services, " in systemd.status())

        proxy.signal(signal.SIGHUP)
        assert proxy.wait() == 0
        told = systemd.received()
        (successor,) = [each for each in told if each.startswith("MAINPID=")]
        pid = int(successor.removeprefix("MAINPID="))
        try:
            assert told.index("RELOADING=1") < told.index(successor)
            assert told.count("READY=1") == 2
            assert "STOPPING=1" not in told, "the service goes on"
            assert get_json(f"http://127.0.0.1:{port}/health/live") == {"status": "live"}
            os.kill(pid, signal.SIGTERM)
            until_blocking(lambda: systemd.count("STOPPING=1"))
        finally:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()


@pytest.mark.parametrize("count", ["2", "many", "-1"])
def test_several_sockets_are_refused(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "a:b"}
    with pytest.raises(ConfigurationError, match=rf"LISTEN_FDS={count}: .*one ListenStream="):
        inherited_listener(environ)


def test_a_socket_of_another_process_is_not_taken() -> None:
    assert inherited_listener({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None
