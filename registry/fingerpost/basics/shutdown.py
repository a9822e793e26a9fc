"""How a long-running command ends: by a signal, or because the process that started it ended.

Python runs a signal's handler between two of its instructions, and asyncio in a turn of its loop: a
process that decodes, or waits for a lock, does neither. So the kernel is told to take the handler
away as it delivers the first signal (`SA_RESETHAND`), after which the second one ends the process
by itself. Python's `signal` cannot set that flag; where the C library is not glibc or musl on
Linux, a second signal needs a loop that runs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["ShutdownSignals", "end_with_parent"]


_SA_RESETHAND: Final = 0x80000000


class _SigAction(ctypes.Structure):
    """`struct sigaction` of glibc and musl on 64-bit processors."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_byte * 128),
        ("flags", ctypes.c_uint),
        ("restorer", ctypes.c_void_p),
    )


class ShutdownSignals:
    """Waits for SIGTERM or SIGINT; a second one ends the process at once.

    SIGHUP sets `restart_requested`, for a command that can restart; others ignore it.

    Make it inside a running event loop, whose signal handlers it replaces.

    Args:
        follow_parent: treat the end of standard input as a first signal. The process that started
            this one holds the other end of that pipe, so that however it dies, this process ends
            too. That is portable, where Linux's `PR_SET_PDEATHSIG` is not.
    """

    def __init__(self, *, follow_parent: bool = False) -> None:
        self._received = asyncio.Event()
        self.restart_requested = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
            _handle_once(number)
        loop.add_signal_handler(signal.SIGHUP, self.restart_requested.set)
        if follow_parent:
            loop.add_reader(sys.stdin.fileno(), self._on_stdin)

    def ignore_restarts(self) -> None:
        """Ignore SIGHUP from now on, until the process has ended.

        The event loop's handler would end with the loop, and SIGHUP would then end a process that
        still closes its connections. It is blocked meanwhile, so that none meets no handler.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def wait(self) -> None:
        """Return at the first signal, or at once if it has come already."""
        await self._received.wait()

    async def cancel_on_signal(self, work: Coroutine[None, None, None]) -> None:
        """Await `work`; the first signal cancels it. Raises what `work` raises."""
        waiting = asyncio.create_task(self.wait())
        working = asyncio.create_task(work)
        try:
            await asyncio.wait((waiting, working), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            waiting.cancel()
            working.cancel()
            await asyncio.gather(waiting, working, return_exceptions=True)

    def _on_signal(self, number: int) -> None:
        if self._received.is_set():
            # Nothing is worth waiting for now; the kernel closes what is open.
            os._exit(128 + number)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)  # the other one, too, ends the process from now on
        self._received.set()

    def _on_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._received.set()


def end_with_parent() -> None:
    """End this process at once when standard input ends, until `ShutdownSignals` takes that over.

    For a start that may take long: a registry that does not answer is waited for without end. Call
    it inside the running event loop.
    """

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            os._exit(1)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), on_stdin)


def _handle_once(number: int) -> None:
    """Let the kernel end the process at the second signal of this number."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    action = _SigAction()
    if libc.sigaction(number, None, ctypes.byref(action)) == 0 and action.handler:
        action.flags |= _SA_RESETHAND
        libc.sigaction(number, ctypes.byref(action), None)
