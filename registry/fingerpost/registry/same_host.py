"""The Unix socket of a worker, and whether it is on this host.

A registration with a Unix socket has four more keys in `Instance.meta`: the socket's path, which
file that is, which one the socket for frames is, and the boot id of the host
(`/proc/sys/kernel/random/boot_id`), which the kernel draws when it starts. A registry shows what it
was given, so none of it is trusted: a client connects only where the boot id is that of its own
host, the path is one that `path_problem` accepts, and the file there is the one that was
registered. In a container the boot id is that of the machine, and the path mostly leads nowhere, or
to another worker's socket: the file tells them apart.

Rejected: asking the socket which process it is. That takes a request for each connection, of a
socket that may be another program's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "FILE_KEY",
    "FRAMES_KEY",
    "FRAMES_SUFFIX",
    "HOST_KEY",
    "MAX_PATH_BYTES",
    "UDS_KEY",
    "LocalSocket",
    "file_id",
    "host_boot_id",
    "path_problem",
    "socket_meta",
]

# The keys of `Instance.meta`.
UDS_KEY: Final = "uds"
FILE_KEY: Final = "uds_file"
FRAMES_KEY: Final = "uds_frames_file"
HOST_KEY: Final = "host_boot_id"
MAX_PATH_BYTES: Final = 93
"""The longest path of a worker's socket. Linux has 107 bytes for it (`sun_path`, less the one that
ends it), of which 7 are for `FRAMES_SUFFIX`, and 7 for the ending that the name has until the
socket listens."""
FRAMES_SUFFIX: Final = ".frames"
"""What is added to the path of a worker's socket for the one that takes decoded frames."""
# What a path must contain. Else an entry in the registry that somebody forged could have clients
# send requests to another program's socket, such as that of a container engine.
_NAME: Final = "fingerpost"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LocalSocket(NamedTuple):
    """A Unix socket that a worker on this host has registered: its path, and which file it is.

    `frames` is the file of the socket for decoded frames, which is at the path with
    `FRAMES_SUFFIX`; empty where there is none.
    """

    path: str
    file: str
    frames: str = ""

    @classmethod
    def of(cls, meta: Mapping[str, str]) -> LocalSocket | None:
        """The socket that a registration's metadata names, if it is on this host."""
        path, host = meta.get(UDS_KEY), meta.get(HOST_KEY)
        if not path or not host or host != host_boot_id() or path_problem(path):
            return None
        return cls(path, meta.get(FILE_KEY, ""), meta.get(FRAMES_KEY, ""))

    def checked(self, *, frames: bool = False) -> str:
        """The path of the socket, or of that for frames.

        Raises:
            OSError: the file is not there, or is not the one that was registered.
        """
        path, file = (f"{self.path}{FRAMES_SUFFIX}", self.frames) if frames else self[:2]
        if file_id(path) != file:
            raise OSError(f"{path} is another file than the registered one")
        return path


@cache
def host_boot_id() -> str:
    """The boot id of this host; empty where the kernel has none (not Linux)."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def file_id(path: str) -> str:
    """Which file a socket is: the numbers of its file system and inode.

    Raises:
        OSError: there is none, or it is not a socket.
    """
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(f"{path} is not a socket")
    return f"{found.st_dev}-{found.st_ino}"


def socket_meta(path: str, file: str, frames: str) -> dict[str, str]:
    """What a worker adds to the metadata of its registration; nothing without a boot id.

    Args:
        path: of its socket.
        file: which file that is.
        frames: which file the socket for frames is.
    """
    host = host_boot_id()
    if not host:
        return {}
    return {UDS_KEY: path, FILE_KEY: file, FRAMES_KEY: frames, HOST_KEY: host}


def path_problem(path: str) -> str:
    """What is wrong with the path of a worker's socket, and the remedy; empty for a good one."""
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        return (
            f"it has {size} bytes, and {MAX_PATH_BYTES} is the most for a Unix socket: use a "
            "shorter one, such as /run/fingerpost/flowers.sock"
        )
    if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
        return "use an absolute path of printable characters, without '..'"
    if _NAME not in path:
        return (
            f"its name, or that of a folder in it, must contain {_NAME!r}, because clients connect "
            "to no other socket: use /run/fingerpost/flowers.sock, for example"
        )
    return ""
