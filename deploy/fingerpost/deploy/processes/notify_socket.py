"""What worker processes tell the process that supervises them: it is their service manager.

They speak sd_notify(3) as they would to systemd, so a worker does the same whether systemd runs it
or a supervisor. Every message carries its sender's process id, which the kernel has checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NotifySocket", "ProcessReport"]

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_MAX_BYTES: Final = 4096
_SCM_CREDENTIALS: Final = 2  # SCM_CREDENTIALS, which typeshed has for Linux alone


@dataclass(slots=True)
class ProcessReport:
    """What one process has told.

    Attributes:
        ready: whether it has registered, and does not drain.
        status: what it does.
        fed_at: when it last fed the watchdog, or became ready, by `now`.
    """

    ready: bool = False
    status: str = "starting"
    fed_at: float = 0.0


class NotifySocket:
    """A Unix socket for the messages of processes, while inside `async with`.

    Args:
        watchdog_s: seconds between two signs of life of a process at most; None means no limit.
        now: the clock, in seconds.
    """

    def __init__(
        self, *, watchdog_s: float | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.watchdog_s = watchdog_s
        self._now = now
        self._reports: dict[int, ProcessReport] = {}
        self._stack = contextlib.ExitStack()
        self._path: Path | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which a process finds this socket; only inside `async with`."""
        if self._path is None:
            return {}
        found = {"NOTIFY_SOCKET": str(self._path)}
        if self.watchdog_s is not None:
            found["WATCHDOG_USEC"] = str(round(self.watchdog_s * 1e6))
        return found

    def report(self, pid: int | None) -> ProcessReport:
        """The last report of a process; of one that has told nothing, an empty one."""
        return self._reports.get(pid or 0, ProcessReport())

    def silent_s(self, pid: int | None) -> float:
        """Seconds since the sign of life of a process that has become ready; else 0."""
        report = self._reports.get(pid or 0)
        return self._now() - report.fed_at if report is not None and report.fed_at else 0.0

    def forget_others(self, pids: set[int]) -> None:
        """Forget the processes that have ended."""
        self._reports = {pid: each for pid, each in self._reports.items() if pid in pids}

    async def __aenter__(self) -> Self:
        """Make the socket, in a folder that no other user can enter; only on Linux."""
        if sys.platform != "linux":
            return self
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fingerpost-"))
        receiver = self._stack.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        )
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._path = Path(folder) / "notify"
        receiver.bind(str(self._path))
        loop = asyncio.get_running_loop()
        loop.add_reader(receiver, self._receive, receiver)
        self._stack.callback(loop.remove_reader, receiver)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._path = None
        self._stack.close()

    def _receive(self, receiver: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = receiver.recvmsg(
                    _MAX_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
                for level, kind, content in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS):
                        pid, _, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                        self._take(pid, data.decode("utf-8", "replace"))

    def _take(self, pid: int, message: str) -> None:
        report = self._reports.setdefault(pid, ProcessReport())
        for line in message.split("\n"):
            name, _, value = line.partition("=")
            match name, value:
                case "READY", "1":
                    report.ready, report.fed_at = True, self._now()
                case "STOPPING", "1":
                    report.ready, report.fed_at = False, 0.0
                case "WATCHDOG", "1" if report.fed_at:
                    report.fed_at = self._now()
                case "STATUS", _:
                    report.status = value
                case _:
                    pass
