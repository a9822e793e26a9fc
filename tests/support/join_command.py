"""`fingerpost join` as a whole command, in a folder in the place of the machine's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fingerpost.deploy.commands import doctor, join
from fingerpost.deploy.join import node, plan
from fingerpost.deploy.setting_names import with_options
from fingerpost.errors import FingerpostError

__all__ = ["Done", "JoinedMachine", "Systemctl", "run_command"]


class Systemctl:
    """Keeps what it is told, and answers questions for properties."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.properties = {"ActiveState": "active", "NRestarts": "0", "StatusText": ""}

    def __call__(self, *arguments: str) -> str:
        if arguments[0] == "show":
            return self.properties[arguments[-1]] + "\n"
        self.calls.append(" ".join(arguments))
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def run_command(*arguments: str) -> Done:
    """Run `fingerpost join` or `doctor` in this process, as `cli.main` does."""
    app = typer.Typer()
    for module in (join, doctor):
        module.add_to(app)
    ended = CliRunner().invoke(app, list(arguments))
    if isinstance(ended.exception, FingerpostError):
        return Done(status=1, out=ended.stdout, err=f"fingerpost: {with_options(ended.exception)}")
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Done(status=ended.exit_code, out=ended.stdout, err=ended.stderr)


@dataclass(slots=True)
class JoinedMachine:
    """A machine with systemd whose root is `root`.

    The units' sandbox hides /tmp, in which tests' folders are; so another folder is hidden here.
    """

    root: Path
    systemctl: Systemctl = field(default_factory=Systemctl)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let `fingerpost join` of this process work on it, with the rights of root."""
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "etc/systemd/system").mkdir(parents=True)
        self.systemctl.properties["ActiveState"] = "inactive"
        patch.setattr(node, "Node", partial(node.Node, self.root, self._run))
        patch.setattr(plan, "_HIDDEN", ("/hidden",))
        patch.setattr("os.geteuid", lambda: 0)

    def _run(self, *arguments: str) -> str:
        """systemctl, whose workers are registered as soon as they are started."""
        if arguments[0] in ("start", "restart"):
            self.systemctl.properties["ActiveState"] = "active"
        return self.systemctl(*arguments)

    def written(self) -> list[str]:
        """The files and empty folders on it, but for those of `install`."""
        paths = (
            each for each in self.root.rglob("*") if each.is_file() or not list(each.iterdir())
        )
        return sorted(str(each.relative_to(self.root)) for each in paths if each.name != "system")
