"""Restarting a server without refusing a connection: the listening socket outlives the process.

Two ways lead here. systemd's socket activation keeps the socket itself and gives it to every
process it starts (`LISTEN_FDS`, see sd_listen_fds(3)). Without it, SIGHUP makes a running server
start a successor that inherits the socket; once that one serves, the old one stops accepting and
leaves. Both hold the same kernel socket with one queue of connections, so that none is refused
or lost in between. With `SO_REUSEPORT`, which was rejected, each process has a queue of its own,
and what waits in the old one's queue is reset when it closes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["inherited_listener", "start_successor", "tell_predecessor"]

_LISTEN: Final = "FINGERPOST_LISTEN_FD"
_READY: Final = "FINGERPOST_READY_FD"
_SYSTEMD_FD: Final = 3


def inherited_listener(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that a predecessor or systemd handed over, None where there is none.

    Takes the variables out of `environ`, so that they do not reach a child by accident.

    Raises:
        ConfigurationError: what was handed over is no listening TCP socket.
    """
    number = environ.pop(_LISTEN, None)
    if number is None and environ.get("LISTEN_PID") == str(os.getpid()):
        del environ["LISTEN_PID"]
        number = str(_SYSTEMD_FD) if environ.pop("LISTEN_FDS", "0") != "0" else None
    if number is None:
        return None
    try:
        listener = socket.socket(fileno=int(number))
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"file descriptor {number} was handed over as a listening socket, but: {error}"
        ) from error
    listener.setblocking(False)
    return listener


def tell_predecessor(environ: MutableMapping[str, str]) -> None:
    """Say that this process serves now, if it is somebody's successor."""
    number = environ.pop(_READY, None)
    if number is not None:
        os.write(int(number), b"1")
        os.close(int(number))


async def start_successor(listener: socket.socket, timeout_s: float) -> int:
    """Start this command again with the same arguments and the socket; return its process id.

    Returns once the successor serves.

    Raises:
        ConfigurationError: it did not within `timeout_s` seconds; it has been ended, and this
            process is to go on serving.
    """
    ours, theirs = os.pipe()
    try:
        environ = {**os.environ, _LISTEN: str(listener.fileno()), _READY: str(theirs)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *sys.orig_argv[1:],
            env=environ,
            pass_fds=(listener.fileno(), theirs),
        )
        os.close(theirs)
        try:
            ready = await asyncio.to_thread(_read_within, ours, timeout_s)
        finally:
            os.close(ours)
    except OSError as error:
        raise ConfigurationError(f"no successor could be started: {error}") from error
    if not ready:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise ConfigurationError(f"the successor did not serve within {timeout_s:g} s")
    return process.pid


def _read_within(descriptor: int, timeout_s: float) -> bytes:
    """One byte; none where the other end was closed or the time is over."""
    import select

    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    return os.read(descriptor, 1) if readable else b""
