"""Restart a server without refusing a connection: the listening socket outlives the process.

There are two ways. With socket activation, systemd keeps the socket, and passes it to every process
that it starts (`LISTEN_FDS`, see sd_listen_fds(3)). Without it, SIGHUP makes a running server start
a successor that inherits the socket; once the successor serves, the old process stops accepting and
exits. Both processes hold the same kernel socket with one queue of connections, so that none is
refused or lost in between.

Rejected: `SO_REUSEPORT`. Each process then has a queue of its own, and the connections that wait in
the old queue are reset when it closes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["inherited_listener", "is_successor", "notify_predecessor", "start_successor"]

_LISTEN: Final = "FINGERPOST_LISTEN_FD"
_READY: Final = "FINGERPOST_READY_FD"
_SYSTEMD_FD: Final = 3


def inherited_listener(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket from a predecessor or from systemd, or None.

    Removes the variables from `environ`, so that child processes do not inherit them.

    Raises:
        ConfigurationError: the descriptor is not a listening TCP socket, or systemd passes several.
    """
    number = environ.pop(_LISTEN, None)
    if number is None and environ.get("LISTEN_PID") == str(os.getpid()):
        del environ["LISTEN_PID"]
        environ.pop("LISTEN_FDNAMES", None)
        number = str(_SYSTEMD_FD) if _passed(environ.pop("LISTEN_FDS", "0")) else None
    if number is None:
        return None
    try:
        listener = socket.socket(fileno=int(number))
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it is not a listening socket")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"file descriptor {number} cannot be used as the listening socket: {error}"
        ) from error
    listener.setblocking(False)
    return listener


def _passed(count: str) -> bool:
    """Whether systemd passes a socket.

    Raises:
        ConfigurationError: it passes more than one; the others would be left without answers.
    """
    if count not in ("0", "1"):
        raise ConfigurationError(
            f"LISTEN_FDS={count}: the proxy listens on one socket. Keep one ListenStream= in the "
            "socket unit; `ListenStream=12480` is both IPv4 and IPv6"
        )
    return count == "1"


def is_successor(environ: Mapping[str, str]) -> bool:
    """Whether a predecessor waits for `notify_predecessor`."""
    return _READY in environ


def notify_predecessor(environ: MutableMapping[str, str]) -> None:
    """Tell the predecessor, if there is one, that this process serves now."""
    number = environ.pop(_READY, None)
    if number is not None:
        os.write(int(number), b"1")
        os.close(int(number))


async def start_successor(
    listener: socket.socket, timeout_s: float, more: Mapping[str, str] | None = None
) -> int:
    """Start this command again with the same arguments and socket, and wait until it serves.

    Args:
        listener: the socket.
        timeout_s: how long it may take, in seconds.
        more: environment variables for it, beside those of this process.

    Returns:
        The process id of the successor.

    Raises:
        ConfigurationError: it did not serve within `timeout_s` seconds. It has been killed; this
            process should continue to serve.
    """
    ours, theirs = os.pipe()
    try:
        environ = {
            **os.environ,
            **(more or {}),
            _LISTEN: str(listener.fileno()),
            _READY: str(theirs),
        }
        # asyncio's own processes are killed when their loop is gone: from Python 3.12 on that is
        # when this process ends, and the successor must outlive it.
        process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, *sys.orig_argv[1:]],
            env=environ,
            pass_fds=(listener.fileno(), theirs),
        )
        os.close(theirs)
        try:
            ready = await asyncio.to_thread(_read_within, ours, timeout_s)
        finally:
            os.close(ours)
    except OSError as error:
        raise ConfigurationError(f"the successor could not be started: {error}") from error
    if not ready:
        process.kill()
        await asyncio.to_thread(process.wait)
        raise ConfigurationError(f"the successor did not serve within {timeout_s:g} s")
    return process.pid


def _read_within(descriptor: int, timeout_s: float) -> bytes:
    """One byte; none if the other end was closed or `timeout_s` seconds have passed."""
    import select

    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    return os.read(descriptor, 1) if readable else b""
