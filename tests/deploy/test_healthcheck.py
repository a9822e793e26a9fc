"""HEALTHCHECK of the images, as a container has it: a namespace of processes with one command."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[2] / "deploy/docker/healthcheck"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, in a container of which a test says what runs."""
    loader = importlib.machinery.SourceFileLoader("healthcheck", str(_FILE))
    spec = importlib.util.spec_from_loader("healthcheck", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    return module


def running(check: Any, monkeypatch: pytest.MonkeyPatch, *commands: str) -> None:
    texts = {f"/proc/{number}/cmdline": text for number, text in enumerate(commands, 1)}
    monkeypatch.setattr(check.glob, "glob", lambda pattern: list(texts))
    monkeypatch.setattr(check, "open", lambda path: io.StringIO(texts[path]), raising=False)
    monkeypatch.setattr(check, "ports", list)


PYTHON = "/opt/fingerpost/bin/python3\0/opt/fingerpost/bin/fingerpost\0"


@pytest.mark.parametrize("command", ["register\0--service\0proxy\0", "stream\0", "bench\0x\0"])
def test_a_command_that_listens_nowhere_is_well_while_it_runs(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    running(check, monkeypatch, PYTHON + command, "python3\0-IS\0/opt/fingerpost/healthcheck\0")
    check.main()
    assert "it runs, and listens nowhere" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["worker\0--model\0x\0", "proxy\0", "up\0"])
def test_a_server_that_does_not_listen_is_not_well(
    check: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    running(check, monkeypatch, PYTHON + command)
    with pytest.raises(SystemExit, match="listens yet"):
        check.main()


def test_without_any_command_it_is_not_well(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    running(check, monkeypatch, "python3\0-IS\0/opt/fingerpost/healthcheck\0")
    with pytest.raises(SystemExit, match="listens yet"):
        check.main()
