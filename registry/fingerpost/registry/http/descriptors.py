"""File descriptors: how many this process may have, and what a server does when all are used up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.log_limit import LogLimit
from fingerpost.registry.http.refusals import REFUSED_CONNECTIONS

if TYPE_CHECKING:
    import socket

__all__ = [
    "SpareDescriptor",
    "descriptor_limit",
    "hard_descriptor_limit",
    "raise_descriptor_limit",
]

logger = logging.getLogger(__name__)

# Far more connections than one process serves; some libraries allocate for each descriptor.
_ENOUGH: Final = 65_536
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_MOST_AT_ONCE: Final = 4096
# For how long asyncio accepts nothing then (`asyncio.constants.ACCEPT_RETRY_DELAY`), and a little.
_ACCEPT_AGAIN_S: Final = 1.5


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows, up to 65,536.

    Linux starts processes with 1024, for programs that use `select`.
    """
    if sys.platform == "win32":
        return
    import resource  # which Windows does not have

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    if sys.platform == "win32":
        return _ENOUGH
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else min(soft, _ENOUGH)


def hard_descriptor_limit() -> int:
    """How many descriptors this process could have, see `raise_descriptor_limit`."""
    if sys.platform == "win32":
        return _ENOUGH
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if hard == resource.RLIM_INFINITY else hard


class SpareDescriptor:
    """Closes waiting connections when no descriptor is left, so that their clients go elsewhere.

    It holds one descriptor, which it gives up for as long as that takes. Without it the clients
    would wait for an answer that does not come, and asyncio's loop would write a traceback for
    each of them, over and over (https://github.com/python/cpython/issues/151615). libuv, and with
    it uvloop, has the same remedy. asyncio accepts again a second later.

    Args:
        listener: the listening socket, not blocking.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._log = LogLimit()
        self._refused_at = -math.inf
        self._loop = asyncio.get_running_loop()
        self._others = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._on_error)

    def close(self) -> None:
        """Give the descriptor up, and the loop its former handler of errors.

        The handler may stay for a moment: asyncio's loop starts to accept again on the socket that
        ran out of descriptors a second before, also where it was closed since, and says so.
        """
        if time.monotonic() - self._refused_at < _ACCEPT_AGAIN_S:
            self._loop.call_later(_ACCEPT_AGAIN_S, self._leave)
        else:
            self._leave()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _leave(self) -> None:
        if self._loop.get_exception_handler() == self._on_error:
            self._loop.set_exception_handler(self._others)

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, place = context.get("exception"), context.get("socket")
        mine = place is not None and place.fileno() == self._listener.fileno()
        closed = self._listener.fileno() < 0
        if mine and isinstance(error, OSError) and error.errno in _EXHAUSTED:
            self._refuse(error)
        elif closed and "_start_serving" in context["message"]:
            pass  # nobody is to be accepted any more
        elif self._others is not None:
            self._others(loop, context)
        else:
            loop.default_exception_handler(context)

    def _refuse(self, error: OSError) -> None:
        self._refused_at = time.monotonic()
        if self._spare is not None:
            os.close(self._spare)
        refused = 0
        with contextlib.suppress(OSError):  # no more are waiting
            while refused < _MOST_AT_ONCE:
                self._listener.accept()[0].close()
                refused += 1
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._spare = None
        REFUSED_CONNECTIONS["descriptors"] += refused
        if self._log.count(time.monotonic()):
            logger.error(
                "no connection can be accepted (%s; the limit is %d descriptors): %d were closed",
                error.strerror,
                descriptor_limit(),
                refused,
            )
