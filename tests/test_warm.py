"""Commands that the tests start from a warm parent are as those that Python starts."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from fingerpost.security.callers.policy_editor import add_caller
from tests.support.processes import COLD, FINGERPOST

pytestmark = pytest.mark.system


def run(*command: str, **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    return done.returncode, done.stdout, done.stderr


def is_warm(process: subprocess.Popen[str]) -> bool:
    return "tests.support.warm_parent" in psutil.Process(process.pid).cmdline()


def start(*program: str, **options: Any) -> subprocess.Popen[str]:
    """A registry, once it listens."""
    process = subprocess.Popen(
        [*program, "registry", "--port", "0"], stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stderr is not None
    assert "listening" in process.stderr.readline()
    return process


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    return process.returncode


def test_it_says_and_returns_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    for arguments in (("resolve", "--no-such"), ("classify", "no-such.png", "--proxy", "x:1")):
        cold, warm = (
            run(*program, *arguments, cwd=tmp_path, env=environment)
            for program in (COLD, FINGERPOST)
        )
        said = [text.replace("fingerpost.deploy.cli", "fingerpost") for text in warm[1:]]
        assert (warm[0], *said) == cold
        assert warm[0] != 0


def on_a_terminal(*command: str, columns: int) -> tuple[int, str]:
    """The exit status and what a command writes, escape sequences with it."""
    own, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, text=True
    )
    assert is_warm(process) == (command[:3] == FINGERPOST)
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # Linux: the other end is closed
        while piece := os.read(own, 65536):
            written += piece
    os.close(own)
    return process.wait(60), written.decode()


def test_on_a_terminal_it_writes_the_same(tmp_path: Path) -> None:
    """Colours and the width of a table: Rich looks at the terminal as its consoles are made."""
    policy = tmp_path / "callers.toml"
    add_caller(policy, "a-camera-with-a-long-name", tenant="plant", role="")
    command = "caller", "list", "--callers", str(policy)
    cold, warm = (on_a_terminal(*program, *command, columns=30) for program in (COLD, FINGERPOST))
    assert warm == cold
    assert warm[0] == 0
    assert "\x1b[1m" in warm[1]
    wide = on_a_terminal(*FINGERPOST, *command, columns=200)
    assert "plant" in wide[1]
    assert "plant" not in warm[1]


def test_it_is_a_child_of_the_tests_in_their_group(tmp_path: Path) -> None:
    process = start(*FINGERPOST, cwd=tmp_path)
    try:
        assert is_warm(process)
        seen = psutil.Process(process.pid)
        assert seen.ppid() == os.getpid()
        assert os.getpgid(process.pid) == os.getpgid(0)
        assert seen.cwd() == str(tmp_path)
        # Nothing of the tests' own descriptors: the streams, a socket, and those of the loop.
        assert {0, 1, 2} <= {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        sockets = seen.net_connections("unix")
        assert len([each for each in sockets if each.fd not in (0, 1, 2)]) <= 2
    finally:
        assert end(process) == 0


def test_a_descriptor_is_passed_under_its_number() -> None:
    reading, writing = os.pipe()
    process = start(*FINGERPOST, pass_fds=[writing], start_new_session=True)
    try:
        assert is_warm(process)
        assert os.getpgid(process.pid) == process.pid
        ours, theirs = (Path(f"/proc/{pid}/fd/{writing}") for pid in ("self", process.pid))
        assert theirs.readlink() == ours.readlink()
    finally:
        end(process)
        os.close(reading)
        os.close(writing)


def test_a_signal_ends_it_as_it_ends_any_process() -> None:
    process = start(*FINGERPOST)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"env": {**os.environ, "LC_ALL": "C"}}, id="another locale"),
        pytest.param({"env": {**os.environ, "PYTHONHASHSEED": "1"}}, id="another Python"),
        pytest.param({"umask": 0o77}, id="another umask"),
    ],
)
def test_what_it_cannot_imitate_is_started_cold(options: dict[str, Any]) -> None:
    process = start(*FINGERPOST, **options)
    try:
        assert not is_warm(process)
    finally:
        end(process)


def test_its_variables_are_its_own() -> None:
    given = {**os.environ, "FINGERPOST_LOG_LEVEL": "no-such-level"}
    code, _, said = run(*FINGERPOST, "registry", "--port", "0", env=given)
    assert code != 0
    assert "no-such-level" in said


def test_another_environment_of_the_tests_has_another_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frameworks set variables as they are imported, and all commands after it would start cold."""
    for value in ("1", "2"):
        monkeypatch.setenv("SET_BY_A_LIBRARY", value)
        process = start(*FINGERPOST)
        try:
            assert is_warm(process)
            assert psutil.Process(process.pid).environ()["SET_BY_A_LIBRARY"] == value
        finally:
            end(process)
