"""What a service tells systemd, by the protocol of sd_notify(3), and how it feeds the watchdog.

The protocol is one datagram of `NAME=value` lines to the Unix socket in `NOTIFY_SOCKET`.

Rejected: the packages `sdnotify`, which swallows no error but has no watchdog and no typing, and
`systemd-python`, which must be compiled and is one for the journal.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping

__all__ = ["ServiceManager"]

logger = logging.getLogger(__name__)

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
_MAX_STATUS: Final = 500  # characters; systemd takes 2 KB in all
_STATUS_EVERY_S: Final = 5.0
# How long a message that must arrive waits for a systemd that is busy.
_SEND_S: Final = 1.0


class ServiceManager:
    """The service manager that started this process; one without a socket does nothing.

    No failure to tell it something disturbs the service: it is logged once.

    Args:
        address: the path of its socket; `@name` is an abstract one. None means no service manager.
        watchdog_s: seconds without a sign of life after which it ends this process; None is no
            limit.

    Attributes:
        watchdog_s: see above.
    """

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        self._address = address
        self._status = ""
        self._warned = False
        self.watchdog_s = watchdog_s

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """The service manager that the environment names.

        Removes its variables from `environ`, so that child processes do not speak for this one.
        """
        address = environ.pop(_SOCKET, None)
        limit, pid = environ.pop(_WATCHDOG, ""), environ.pop(_WATCHDOG_PID, None)
        if address is not None and not address.startswith(("/", "@")):
            logger.warning("%s=%s is not the path of a Unix socket", _SOCKET, printable(address))
            address = None
        watched = address is not None and pid in (None, str(os.getpid()))
        microseconds = int(limit) if limit.isascii() and limit.isdigit() else 0
        return cls(address, watchdog_s=microseconds / 1e6 if watched and microseconds else None)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables for a process that takes this one's place."""
        if self._address is None:
            return {}
        found = {_SOCKET: self._address}
        if self.watchdog_s is not None:
            found[_WATCHDOG] = str(round(self.watchdog_s * 1e6))
        return found

    def ready(self, status: str) -> None:
        """The service works; `status` says what it does, for `systemctl status`."""
        self._status = status
        self._send("READY=1", f"STATUS={_line(status)}", must=True)

    def status(self, text: str) -> None:
        """What the service does now."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    def stopping(self, status: str) -> None:
        """The service has begun to end."""
        self._status = status
        self._send("STOPPING=1", f"STATUS={_line(status)}", must=True)

    def reloading(self) -> None:
        """The service starts a successor, until `ready` or `succeeded_by`."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", must=True)

    def succeeded_by(self, pid: int) -> None:
        """Another process is the service from now on, and it serves already."""
        self._send(f"MAINPID={pid}", "READY=1", must=True)
        self._address = None

    @asynccontextmanager
    async def informed(
        self, status: Callable[[], str], healthy: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """`keep_informed` in a task of its own, until the end of `async with`."""
        task = asyncio.create_task(self.keep_informed(status, healthy), name="service manager")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def keep_informed(self, status: Callable[[], str], healthy: Callable[[], bool]) -> None:
        """Report what the service does, and feed the watchdog while it is healthy, until cancelled.

        The watchdog is fed three times in `watchdog_s`. An event loop that stands still does not
        feed it either.

        Args:
            status: what the service does now.
            healthy: whether it works.
        """
        if self._address is None:
            return
        pause_s = min(_STATUS_EVERY_S, (self.watchdog_s or math.inf) / 3)
        while True:
            if self.watchdog_s is not None and healthy():
                self._send("WATCHDOG=1")
            self.status(status())
            await asyncio.sleep(pause_s)

    def _send(self, *lines: str, must: bool = False) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_S if must else 0.0)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning("systemd cannot be told %s: %s", lines[0], error)


def _line(text: str) -> str:
    return printable(text, most=_MAX_STATUS)
