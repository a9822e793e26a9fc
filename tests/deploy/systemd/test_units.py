"""The unit files: systemd takes them, they are sandboxed, and their commands exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
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


@pytest.mark.parametrize("verb", ["try-restart", "stop"])
def test_the_package_restarts_and_stops_every_service(verb: str) -> None:
    (line,) = re.findall(rf"systemctl {verb} ('.*)$", (FOLDER / "build-deb").read_text(), re.M)
    patterns = shlex.split(line.partition("||")[0])
    instances = [each.replace("@.", "@flowers.") for each in SERVICES]
    assert [each for each in instances if any(fnmatch(each, one) for one in patterns)] == instances


@pytest.mark.parametrize("unit", SERVICES)
def test_workers_alone_see_more_of_proc_than_their_processes(unit: str) -> None:
    assert settings(unit, "ProtectProc") == ["invisible"]
    assert settings(unit, "ProcSubset") == ([] if "-worker" in unit else ["pid"])


@pytest.mark.parametrize("unit", SERVICES)
def test_workers_alone_may_ask_for_network_interfaces(unit: str) -> None:
    """ZeroMQ does when it listens; libzmq ends the process where it may not."""
    (families,) = settings(unit, "RestrictAddressFamilies")
    assert families.split() == ["AF_INET", "AF_INET6", "AF_UNIX"] + ["AF_NETLINK"] * (
        "-worker" in unit
    )


def with_a_program_that_is_here(folder: Path) -> list[str]:
    """Copies of the units, which systemd can judge where Fingerpost is not installed."""
    units = []
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in (".service", ".socket"):
            text = path.read_text().replace("/opt/fingerpost/bin/fingerpost", sys.executable)
            (folder / path.name).write_text(text)
            units.append(str(folder / path.name))
    return units


@pytest.mark.shell
def test_systemd_takes_them_and_they_are_sandboxed(tmp_path: Path) -> None:
    """With a program that is here. A machine without systemd has nothing that could judge."""
    units = with_a_program_that_is_here(tmp_path)
    if tool := shutil.which("systemd-analyze"):
        done = subprocess.run([tool, "verify", *units], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        services = [each for each in units if each.endswith(".service")]
        secure = [tool, "security", "--offline=yes", f"--threshold={MOST}", "--no-pager"]
        done = subprocess.run([*secure, *services], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
        assert done.stdout.count("Overall exposure level") == len(services)


@pytest.mark.shell
def test_systemd_takes_the_addresses_that_the_readme_names(tmp_path: Path) -> None:
    readme = (FOLDER / "README.md").read_text()
    (shown,) = re.findall(r"^((?: {4}.*\n)*(?: {4}IPAddressDeny=.*\n)(?: {4}.*\n)*)", readme, re.M)
    drop_in = re.sub(r"^ {4}", "", shown, flags=re.MULTILINE)
    assert drop_in.startswith("[Service]\n")
    units = with_a_program_that_is_here(tmp_path)
    for unit in units:
        folder = Path(f"{unit}.d")
        folder.mkdir()
        section = "[Socket]" if unit.endswith(".socket") else "[Service]"
        (folder / "addresses.conf").write_text(drop_in.replace("[Service]", section))
    if tool := shutil.which("systemd-analyze"):
        done = subprocess.run([tool, "verify", *units], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        services = [each for each in units if each.endswith(".service")]
        secure = [tool, "security", "--offline=yes", "--no-pager", *services]
        done = subprocess.run(secure, capture_output=True, text=True)
        allowed = [line for line in done.stdout.splitlines() if "IPAddressDeny=" in line]
        assert len(allowed) == len(services)
        assert all("IP address allow list" in line and "not" not in line for line in allowed)
