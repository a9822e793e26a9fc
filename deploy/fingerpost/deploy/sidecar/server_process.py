"""The server beside a sidecar: started by it, or found running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

__all__ = ["ServerProcess"]

logger = logging.getLogger(__name__)


class ServerProcess:
    """A server process; without a command it is somebody else's, which never ends here.

    It has a session of its own: Ctrl-C in a terminal goes to the sidecar, which drains first.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: Process | None = None
        self._ended = asyncio.Event()
        self._waiting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, where it was started here."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it, if there is a command.

        Raises:
            ConfigurationError: the command cannot be run.
        """
        if not self._command:
            return
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the server {self._command[0]!r} cannot be started: {error}"
            ) from error
        self._waiting = asyncio.create_task(self._wait(self._process), name="server")

    async def _wait(self, process: Process) -> None:
        await process.wait()
        self._ended.set()

    async def ended(self) -> str:
        """Return how it ended, once it has."""
        await self._ended.wait()
        return self.problem

    @property
    def problem(self) -> str:
        """How it ended; empty while it runs."""
        process = self._process
        if process is None or process.returncode is None:
            return ""
        if process.returncode < 0:
            return f"the server was ended by {signal.Signals(-process.returncode).name}"
        return f"the server ended with status {process.returncode}"

    async def stop(self, grace_s: float) -> None:
        """End it by SIGTERM, and after `grace_s` seconds by SIGKILL; then what it left running."""
        process = self._process
        if process is None:
            return
        for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            if process.returncode is None:
                process.send_signal(number)
            try:
                async with asyncio.timeout(limit_s):
                    await self._ended.wait()
                break
            except TimeoutError:
                logger.warning("the server did not end within %g s of %s", limit_s, number.name)
        with contextlib.suppress(ProcessLookupError):  # it leads a group of its own
            os.killpg(process.pid, signal.SIGKILL)
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
