"""A listening Unix socket, whose file takes the place of what a former process left there.

The socket is bound under another name, and moved to its path when it listens. So there is no moment
at which the path refuses connections: not after a crash, whose file is still there, and not when
the next worker starts while the former one drains. Rejected: a lock file, which stays behind; and
removing the file of a socket that refuses connections, which two processes can do at once, each to
the other's new socket.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import socket
import stat
import sys
from pathlib import Path
from typing import Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.same_host import file_id, path_problem

__all__ = ["UnixListener", "client_name"]

logger = logging.getLogger(__name__)

# Like a TCP port, it takes everybody who reaches it; the mode of its folder can say who does.
_MODE: Final = 0o666
_PEER_CREDENTIALS: Final = 12  # bytes of `struct ucred`: pid, uid, gid


class UnixListener:
    """A bound Unix socket; `publish` gives it its path once it listens, and `close` takes it away.

    Args:
        path: of the socket.
        option: what to call the setting in messages, such as `--uds`.
        kind: of the socket.
        suffix: is added to the path.

    Attributes:
        socket: bound, not listening yet.
        file: which file it is, see `file_id`.

    Raises:
        ConfigurationError: the path is too long or not valid, its folder is not there or not
            writable, or there is a file which is not a socket.
    """

    def __init__(
        self,
        path: str,
        option: str,
        kind: socket.SocketKind = socket.SOCK_STREAM,
        suffix: str = "",
    ) -> None:
        if problem := path_problem(path):
            raise ConfigurationError(f"{option} {path!r} is not a valid path: {problem}")
        if sys.platform != "linux":
            raise ConfigurationError(f"{option} needs Linux: leave it out, and TCP is used")
        path = f"{path}{suffix}"
        self._path = Path(path)
        self._option = option
        self._published = False
        self._hidden = Path(f"{path}.{secrets.token_hex(3)}")  # which `ss` shows of its connections
        with contextlib.suppress(OSError):  # binding says what is wrong
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise ConfigurationError(
                    f"{option} {path}: there is a file that is not a socket: give another path"
                )
        self.socket = socket.socket(socket.AF_UNIX, kind)
        try:
            self.socket.bind(str(self._hidden))
            self._hidden.chmod(_MODE)
            self.file = file_id(str(self._hidden))
        except OSError as error:
            self.close()
            raise self._cannot_listen(error) from error

    def publish(self) -> None:
        """Move the socket to its path. Call it when the socket listens.

        Raises:
            ConfigurationError: that is not possible.
        """
        if self._is_used():
            logger.warning(
                "%s is taken over from a process that still listens there: its clients use TCP",
                self._path,
            )
        try:
            self._hidden.rename(self._path)
        except OSError as error:
            raise self._cannot_listen(error) from error
        self._published = True

    def close(self) -> None:
        """Close the socket, and remove its file unless another process has taken the path over."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if not self._published:
                self._hidden.unlink()
            elif file_id(str(self._path)) == self.file:
                self._path.unlink()

    def _is_used(self) -> bool:
        with socket.socket(socket.AF_UNIX, self.socket.type) as probe:
            probe.settimeout(0)
            try:
                probe.connect(str(self._path))
            except BlockingIOError:  # so many wait there that it takes no more
                return True
            except OSError:
                return False
            return True

    def _cannot_listen(self, error: OSError) -> ConfigurationError:
        folder = self._path.parent
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = f"let the worker's user write to the folder {folder}, or give another path"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            remedy = f"make the folder {folder} first, or give another path"
        else:
            remedy = "give another path"
        return ConfigurationError(
            f"cannot listen on {self._option} {self._path}: {error.strerror}; {remedy}"
        )


def client_name(transport: Any) -> str:
    """What counts as one client: its address, or `uid 1000` of one at a Unix socket.

    Empty where that is not known.

    Args:
        transport: a connection, or anything with its `get_extra_info`.
    """
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0])
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != getattr(socket, "AF_UNIX", None):
        return ""
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS)
    except (AttributeError, OSError):  # not Linux, or the connection is gone
        return ""
    return f"uid {int.from_bytes(credentials[4:8], sys.byteorder)}"
