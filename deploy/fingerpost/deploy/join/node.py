"""Carries out a plan on this machine, waits for its first answered image, and takes it back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fingerpost.deploy.join.plan import (
    CONFIG,
    CREDENTIALS,
    LISTED,
    MARK,
    UNIT,
    UNITS,
    JoinPlan,
    PlannedFile,
)
from fingerpost.errors import ConfigurationError
from fingerpost.security.secret_file import write_file

__all__ = ["Node"]

_BOOTED: Final = Path("run/systemd/system")  # sd_booted(3)
_LOOK_S: Final = 0.5


class Node:
    """This machine.

    Args:
        root: the folder that all paths are under; another one in tests.
        systemctl: runs `systemctl` with arguments, and returns what it prints.
    """

    def __init__(self, root: Path = Path("/"), systemctl: Callable[..., str] | None = None) -> None:
        self._root = root
        self._systemctl = systemctl or run_systemctl

    def check(self, plan: JoinPlan) -> None:
        """Check that the plan can be carried out.

        Raises:
            ConfigurationError: no systemd, no right to write, or a file of somebody else's.
        """
        if not (self._root / _BOOTED).is_dir():
            raise ConfigurationError(
                "systemd does not run this machine, and join writes units for it: start "
                "`fingerpost worker` under the service manager that does"
            )
        if os.geteuid() != 0:
            raise ConfigurationError("join writes to /etc and starts a service: run it as root")
        for file in plan.files:
            path = self._at(file.path)
            self._check_folder(path if file.content is None else path.parent)
            if file.content is None or not path.exists() or self._is_so(file):
                continue
            if not (path in self._credentials() if file.secret else self._is_ours(path)):
                raise ConfigurationError(
                    f"{file.path} exists, and `fingerpost join` has not written it: move it away"
                )

    @property
    def joined(self) -> bool:
        """Whether `fingerpost join` has written the unit."""
        return self._is_ours(self._at(UNITS / UNIT))

    def changes(self, plan: JoinPlan) -> list[PlannedFile]:
        """What of the plan is not so already."""
        return [file for file in plan.files if not self._is_so(file)]

    def write(self, files: list[PlannedFile]) -> None:
        """Write files and make folders.

        Raises:
            ConfigurationError: that is not possible.
        """
        for file in files:
            path = self._at(file.path)
            try:
                if file.content is None:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_file(path, file.content.encode(), mode=file.mode, replace=True)
                path.chmod(file.mode)
            except OSError as error:
                raise ConfigurationError(
                    f"{file.path} cannot be written: {error.strerror}"
                ) from error

    @property
    def active(self) -> bool:
        """Whether the workers run, and are registered."""
        return self._property("ActiveState") == "active"

    def start(self, *, changed: bool) -> None:
        """Start the workers, now and after each boot; with `changed` also those that run."""
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", UNIT)
        self._systemctl("restart" if changed else "start", "--no-block", UNIT)

    def wait_started(self, timeout_s: float, on_status: Callable[[str], None]) -> None:
        """Wait until the workers are registered.

        Args:
            timeout_s: in seconds.
            on_status: called with what they do, when that changes.

        Raises:
            ConfigurationError: they ended with an error, or did not start in time; the message has
                the last line of their log.
        """
        end, last = time.monotonic() + timeout_s, ""
        restarts = self._property("NRestarts")
        while not self.active:
            status = self._property("StatusText")
            if status and status != last:
                last = status
                on_status(status)
            failed = self._property("ActiveState") == "failed"
            if failed or self._property("NRestarts") != restarts:
                raise ConfigurationError(f"the workers do not start: {self._last_line()}")
            if time.monotonic() > end:
                raise ConfigurationError(
                    f"the workers are not registered after {timeout_s:g} s ({last or 'no status'}):"
                    f" see journalctl -u {UNIT}"
                )
            time.sleep(_LOOK_S)

    def undo(self) -> list[Path]:
        """Drain and stop the workers, and remove what `write` wrote; return what is gone.

        Files that were changed so much that they lost their mark stay, and the models too.
        """
        unit = self._at(UNITS / UNIT)
        if self._is_ours(unit):
            self._systemctl("disable", "--now", "--quiet", UNIT)
        written = (unit, self._at(CONFIG / "fingerpost.env"), self._at(CONFIG / "worker.env"))
        gone = [*self._credentials(), *(path for path in written if self._is_ours(path))]
        for path in gone:
            path.unlink()
        if gone:
            self._systemctl("daemon-reload")
        return [Path("/") / path.relative_to(self._root) for path in gone]

    def missing_folders(self, plan: JoinPlan) -> list[Path]:
        """The folders of the plan that are not there yet."""
        folders = (file.path for file in plan.files if file.content is None)
        return [path for path in folders if not self._at(path).exists()]

    def remove_folders(self, folders: Sequence[Path]) -> None:
        """Remove those of these folders that are empty: services may need others that are.

        Args:
            folders: each before those in it.
        """
        for folder in reversed(folders):
            with contextlib.suppress(OSError):  # somebody else has files there
                self._at(folder).rmdir()

    def _check_folder(self, folder: Path) -> None:
        """Check that files can be made in a folder, or the folder itself."""
        while not os.path.lexists(folder):
            folder = folder.parent
        shown = Path("/") / folder.relative_to(self._root)
        if not folder.is_dir():
            raise ConfigurationError(f"{shown} is not a folder, and join writes into it: move it")
        if not os.access(folder, os.W_OK):
            raise ConfigurationError(
                f"{shown} cannot be written to, and join writes units and settings there: mount "
                "its file system with write access"
            )

    def _credentials(self) -> list[Path]:
        """The credentials that `write` wrote, which the settings list."""
        settings = self._at(CONFIG / "worker.env")
        if not self._is_ours(settings):
            return []
        for line in settings.read_text("utf-8").splitlines():
            if line.startswith(LISTED):
                paths = (self._at(CREDENTIALS / name) for name in line[len(LISTED) :].split())
                return [path for path in paths if path.is_file()]
        return []

    def _last_line(self) -> str:
        """The error with which the workers ended last."""
        command = ["journalctl", "-u", UNIT, "-n", "200", "--no-pager", "-o", "cat"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
        except OSError:
            return "their log cannot be read"
        own = [line for line in done.stdout.splitlines() if line.startswith("fingerpost: ")]
        return own[-1].removeprefix("fingerpost: ") if own else f"see journalctl -u {UNIT}"

    def _property(self, name: str) -> str:
        return self._systemctl("show", UNIT, "--value", "-p", name).strip()

    def _at(self, path: Path) -> Path:
        return self._root / path.relative_to("/")

    def _is_ours(self, path: Path) -> bool:
        try:
            return path.read_text("utf-8").startswith(MARK)
        except OSError:
            return False

    def _is_so(self, file: PlannedFile) -> bool:
        path = self._at(file.path)
        try:
            if path.stat().st_mode & 0o777 != file.mode:
                return False
            return path.is_dir() if file.content is None else path.read_text() == file.content
        except OSError:
            return False


def run_systemctl(*arguments: str) -> str:
    """What `systemctl` prints.

    Raises:
        ConfigurationError: it failed.
    """
    command = ["systemctl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    if done.returncode:
        raise ConfigurationError(
            f"systemctl {' '.join(arguments)} failed: {done.stderr.strip() or done.returncode}"
        )
    return done.stdout
