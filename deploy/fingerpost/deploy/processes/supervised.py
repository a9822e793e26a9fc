"""A process of the `fingerpost` command that is started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from fingerpost.basics.backoff import Backoff
from fingerpost.errors import ConfigurationError

__all__ = ["SupervisedProcess"]

# After this long, a failure no longer counts: the next restart comes at once.
_STABLE_AFTER_S: Final = 10.0
# The delays before restarts: 0.2, 0.45, 1, 2.2, 5 and 10 s; without jitter, since one supervisor
# starts all of them.
_BACKOFF: Final = Backoff(base_s=0.2, cap_s=10.0, factor=2.24)


class SupervisedProcess:
    """A `fingerpost` subcommand in a process of its own, restarted whenever it dies until `stop`.

    The process has its own session, so that Ctrl-C at the terminal reaches the supervisor alone.
    Its standard input is a pipe whose end makes it stop, should the supervisor be killed.

    Args:
        name: the name that `on_line` gets with each line.
        arguments: the subcommand and its options.
        on_line: called with the name and each line that the process writes.
        environment: returns variables for it, beside those of this process.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        on_line: Callable[[str, str], None],
        *,
        environment: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name = name
        self._environment = environment
        self.restarts = 0
        self._arguments = arguments
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=5)
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id; None before the start, after the end and between restarts."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process, and a task that restarts it when it dies."""
        await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    def kill(self) -> None:
        """Send SIGKILL, as if it had crashed; the process is then restarted."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def wait_failed(self) -> None:
        """Wait until the process fails in a way that a restart cannot repair.

        Returns only after `stop`.

        Raises:
            ConfigurationError: it exited with status 1 or 2; the message is its last line.
        """
        assert self._supervisor is not None  # noqa: S101 - set by `start`
        await asyncio.shield(self._supervisor)

    async def stop(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL if the process still runs after `grace_s` seconds."""
        self._stopping = True
        if self.pid is not None and self._process is not None:
            self._process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fingerpost.deploy.cli",
            *self._arguments,
            "--follow-parent",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,  # the longest line
            env={**os.environ, **self._environment()},
            start_new_session=True,
        )

    async def _supervise(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            code = await self._read_until_exit()
            if self._stopping:
                return
            if code in (1, 2):
                reason = self._last_lines[-1] if self._last_lines else f"exit status {code}"
                raise ConfigurationError(f"{self.name}: {reason.removeprefix('fingerpost: ')}")
            stable = time.monotonic() - started > _STABLE_AFTER_S
            failures = 0 if stable else failures + 1
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._on_line(self.name, f"ended by {how}; starting it again")
            await asyncio.sleep(_BACKOFF.nominal_s(failures))
            self.restarts += 1
            await self._spawn()

    async def _read_until_exit(self) -> int:
        """Pass on the lines of the running process until it ends; return its exit status."""
        process = self._process
        assert process is not None  # noqa: S101 - spawned before
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        while line := await process.stdout.readline():
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._last_lines.append(text)
                self._on_line(self.name, text)
        return await process.wait()
