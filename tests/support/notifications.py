"""A real Unix socket in systemd's place, and what services tell it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

__all__ = ["Notifications"]


class Notifications:
    """Receives what processes tell by sd_notify; `environment` names it to them.

    Attributes:
        lines: all lines so far, in order.
    """

    def __init__(self, folder: Path, watchdog_s: float | None = None) -> None:
        self.path = folder / "notify"
        self.lines: list[str] = []
        self.environment = {"NOTIFY_SOCKET": str(self.path)}
        if watchdog_s is not None:
            self.environment["WATCHDOG_USEC"] = str(round(watchdog_s * 1e6))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def received(self) -> list[str]:
        """All lines so far, those that have just come included."""
        try:
            while True:
                self.lines += self._socket.recv(65_536).decode().split("\n")
        except BlockingIOError:
            return self.lines

    def count(self, line: str) -> int:
        """How often a line has come."""
        return self.received().count(line)

    def status(self) -> str:
        """The last status; empty before the first."""
        found = [each.removeprefix("STATUS=") for each in self.received() if "STATUS=" in each]
        return found[-1] if found else ""
