"""The Unix sockets of workers on this host, which are tried before TCP."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.registry.same_host import LocalSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fingerpost.registry import Instance

__all__ = ["LocalSockets"]

logger = logging.getLogger(__name__)

# A socket that cannot be connected to is not tried again for so long. Mostly this client is in
# another container than the worker, and that does not change.
_RETRY_S: Final = 60.0


@dataclass(slots=True)
class _Known:
    socket: LocalSocket
    retry_at: float = -inf


class LocalSockets:
    """Connects to workers by their Unix sockets, where that is possible.

    What cannot be connected to costs one attempt a minute, of some microseconds, and a line in the
    log at level debug: the client goes on by TCP.

    Args:
        clock: the event loop's time.
        enabled: whether any is used.
    """

    def __init__(self, clock: Callable[[], float], *, enabled: bool) -> None:
        self._clock = clock
        self._enabled = enabled
        self._known: dict[str, _Known] = {}

    def retain(self, instances: Collection[Instance]) -> None:
        """Learn the sockets of these workers, and forget all others."""
        if not self._enabled:
            return
        known: dict[str, _Known] = {}
        for each in instances:
            found = LocalSocket.of(each.meta)
            if found is not None:
                before = self._known.get(each.target)
                same = before is not None and before.socket == found
                known[each.target] = before if before is not None and same else _Known(found)
        self._known = known

    def connect(self, target: str) -> socket.socket | None:
        """A connected, non-blocking socket; None where TCP is to be used.

        It does not wait: the kernel connects a Unix socket at once, or refuses to.

        Args:
            target: see `Instance.target`.
        """
        known = self._known.get(target)
        if known is None or self._clock() < known.retry_at:
            return None
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(0)
            known.socket.check()
            made.connect(known.socket.path)
        except BlockingIOError:  # too many connections wait there now
            made.close()
            return None
        except OSError as error:
            made.close()
            known.retry_at = self._clock() + _RETRY_S
            logger.debug("%s is used by TCP: %s: %s", target, known.socket.path, error)
            return None
        return made
