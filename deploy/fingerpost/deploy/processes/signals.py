"""When a long-running command ends: signals, and the death of the process that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

__all__ = ["Lifetime"]


class Lifetime:
    """Turns the first SIGTERM or SIGINT into `wait` returning, the second into an immediate end.

    SIGHUP sets `restart_wanted`, for those that can restart; others go on.

    With `follow_parent`, the end of standard input counts as a first signal: whoever started this
    process holds the other end of that pipe, so that no death of its leaves this process behind.
    It is portable, where Linux's `PR_SET_PDEATHSIG` is not.
    """

    def __init__(self, *, follow_parent: bool = False) -> None:
        self._ending = asyncio.Event()
        self.restart_wanted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self.restart_wanted.set)
        if follow_parent:
            loop.add_reader(sys.stdin.fileno(), self._stdin_ready)

    async def wait(self) -> None:
        """Return at the first signal."""
        await self._ending.wait()

    def _signalled(self, number: int) -> None:
        if self._ending.is_set():
            # Nothing is worth waiting for now; the kernel closes what is open.
            os._exit(128 + number)
        self._ending.set()

    def _stdin_ready(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._ending.set()
