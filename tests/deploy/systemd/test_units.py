"""The unit files: systemd takes them, they are sandboxed, and their commands exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

FOLDER = Path(__file__).parents[3] / "deploy" / "systemd"
SERVICES = sorted(path.name for path in FOLDER.glob("*.service"))
# The most exposure that `systemd-analyze security` may find, of 100.
MOST = 25


def settings(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


def test_there_is_one_for_each_kind_of_service() -> None:
    assert SERVICES == [
        "fingerpost-proxy.service",
        "fingerpost-register@.service",
        "fingerpost-worker@.service",
        "fingerpost-workers.service",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("unit", SERVICES)
def test_the_command_line_is_valid(unit: str) -> None:
    (line,) = settings(unit, "ExecStart")
    program, name, *arguments = shlex.split(line)
    assert program == "/opt/fingerpost/bin/fingerpost"
    assert arguments.pop() == f"$FINGERPOST_{name.upper()}_OPTIONS"
    if name == "register":  # its options say which server
        arguments = ["--service", "flowers", *arguments[2:], "--port", "9000"]
    app = typer.Typer()
    app.callback()(lambda: None)  # or a single command has no name
    importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)
    command = vars(typer.main.get_command(app))["commands"][name]
    context = command.make_context(name, arguments)
    if name != "register":
        assert context.params["host"] == "0.0.0.0"  # noqa: S104 - for clients on other machines


@pytest.mark.parametrize("unit", SERVICES)
def test_what_every_service_has(unit: str) -> None:
    assert settings(unit, "Type") == ["notify"]
    assert settings(unit, "DynamicUser") == ["yes"]
    assert settings(unit, "WatchdogSec")
    assert settings(unit, "EnvironmentFile")[0] == "-/etc/fingerpost/fingerpost.env"
    (credential,) = settings(unit, "LoadCredential")
    assert credential.startswith("fingerpost:/etc/fingerpost/credentials/")


@pytest.mark.shell
def test_systemd_takes_them_and_they_are_sandboxed(tmp_path: Path) -> None:
    """With a program that is here. A machine without systemd has nothing that could judge."""
    units = []
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in (".service", ".socket"):
            text = path.read_text().replace("/opt/fingerpost/bin/fingerpost", sys.executable)
            (tmp_path / path.name).write_text(text)
            units.append(str(tmp_path / path.name))
    if tool := shutil.which("systemd-analyze"):
        done = subprocess.run([tool, "verify", *units], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        services = [each for each in units if each.endswith(".service")]
        secure = [tool, "security", "--offline=yes", f"--threshold={MOST}", "--no-pager"]
        done = subprocess.run([*secure, *services], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
        assert done.stdout.count("Overall exposure level") == len(services)
