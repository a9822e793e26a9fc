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
    local: LocalSocket
    retry_at: float = -inf
    frames_retry_at: float = -inf
    sender: socket.socket | None = None

    def close(self) -> None:
        """Close the connection for frames."""
        if self.sender is not None:
            self.sender.close()
            self.sender = None


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
                same = before is not None and before.local == found
                known[each.target] = before if before is not None and same else _Known(found)
        for target, one in self._known.items():
            if known.get(target) is not one:
                one.close()
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
        made, known.retry_at = self._connect(known.local, socket.SOCK_STREAM)
        return made

    def takes_frames(self, target: str) -> bool:
        """Whether memory can be sent there, as far as is known."""
        known = self._known.get(target)
        if known is None or not known.local.frames:
            return False
        return self._clock() >= max(known.retry_at, known.frames_retry_at)

    @property
    def frames(self) -> bool:
        """Whether any worker takes frames."""
        return any(map(self.takes_frames, self._known))

    def send_frame(self, target: str, token: bytes, descriptor: int) -> bool:
        """Send the memory of a frame; False where that is not possible now.

        Args:
            target: see `Instance.target`.
            token: which the request then names.
            descriptor: of the memory, which stays the caller's.
        """
        for _ in range(2):  # the worker may have closed the connection
            known = self._known.get(target)
            if known is None or self._clock() < known.frames_retry_at:
                return False
            if known.sender is None:
                known.sender, known.frames_retry_at = self._connect(
                    known.local, socket.SOCK_SEQPACKET, frames=True
                )
            if known.sender is None:
                return False
            try:
                socket.send_fds(known.sender, (token,), (descriptor,))
            except BlockingIOError:
                return False
            except OSError:
                known.close()
            else:
                return True
        return False

    def close(self) -> None:
        """Close the connections for frames."""
        for each in self._known.values():
            each.close()
        self._known = {}

    def _connect(
        self, local: LocalSocket, kind: socket.SocketKind, *, frames: bool = False
    ) -> tuple[socket.socket | None, float]:
        """A connected socket, or None and when to try again."""
        made = socket.socket(socket.AF_UNIX, kind)
        try:
            made.settimeout(0)
            made.connect(local.checked(frames=frames))
        except BlockingIOError:  # too many connections wait there now
            made.close()
            return None, -inf
        except OSError as error:
            made.close()
            logger.debug("%s is not used: %s", local.path, error)
            return None, self._clock() + _RETRY_S
        return made, -inf
