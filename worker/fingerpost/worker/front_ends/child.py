"""A front end as the process sees it that started it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.worker.front_ends.messages import Order

if TYPE_CHECKING:
    from fingerpost.worker.front_ends.messages import Served

__all__ = ["ChildProcess"]

_MODULE: Final = "fingerpost.worker.front_ends.process"


class ChildProcess:
    """One front end; `start` starts it again.

    Attributes:
        number: which one it is.
        models: what it serves; None while it does not.
        idle: set when it has been told to refuse requests, and has none in flight.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.models: list[Served] | None = None
        self.idle = asyncio.Event()
        self.served = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._report: asyncio.Future[str] | None = None

    @property
    def serving(self) -> bool:
        """Whether it listens."""
        return self.served.is_set()

    async def start(self, passed: list[int]) -> None:
        """Start it with these descriptors."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            *map(str, passed),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=passed,
            start_new_session=True,
        )

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        return 0 if self._process is None else await self._process.wait()

    def serve(self) -> None:
        """Note that it listens."""
        self.served.set()

    def ended(self) -> None:
        """Note that it has ended."""
        if self.writer is not None:
            self.writer.close()
        self.writer = self.models = None
        self.served.clear()
        self.idle.set()  # nothing is in flight
        self.reported("")

    def send(self, order: Order) -> None:
        """Order something, if it lives."""
        if self.writer is not None:
            if order.what == "refuse":
                self.idle.clear()
            self.writer.write(msgspec.json.encode(order) + b"\n")

    async def report(self, timeout_s: float) -> str | None:
        """Its metrics; None where it does not answer in time."""
        if self._report is None:
            self._report = asyncio.get_running_loop().create_future()
            self.send(Order("report"))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._report) or None
        return None

    def reported(self, text: str) -> None:
        """Its metrics have come; empty where they will not."""
        if self._report is not None:
            self._report.set_result(text)
            self._report = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
