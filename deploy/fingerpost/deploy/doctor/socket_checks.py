"""Whether workers can make a Unix socket at a path (`--uds`), and clients can connect to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, note, ok, warning
from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.unix_listener import UnixListener
from fingerpost.registry.same_host import path_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_socket"]

# The units make these when they start (RuntimeDirectory=), and remove them when they end.
_OF_UNITS: Final = "/run/fingerpost-worker"


def check_socket(path: str, *, processes: int = 1, running: bool = False) -> Iterator[Finding]:
    """The findings for the path of a worker's socket.

    A socket is made beside the path, and is gone again.

    Args:
        path: as of `--uds`.
        processes: of several workers, each has `path` with `.0`, `.1` and so on.
        running: whether a worker may serve there already.
    """
    longest = path if processes == 1 else f"{path}.{processes - 1}"
    if problem := path_problem(longest):
        text, _, remedy = problem.partition(": ")
        yield error("uds", f"--uds {longest!r} is not a valid path: {text}", remedy or text)
        return
    file, folder = Path(path), Path(path).parent
    if not folder.exists() and str(folder).startswith(_OF_UNITS):
        yield note("uds", f"{folder} is not there yet: the workers' unit makes it when it starts")
        return
    if not running and file.is_socket():
        text = f"there is a socket already at {path}: a worker that starts takes it over"
        yield warning("uds", text, "stop what serves there, or give another path (--uds)")
    try:
        UnixListener(longest, "--uds").close()
    except ConfigurationError as failed:
        text, _, remedy = str(failed).rpartition("; ")
        yield error("uds", text or str(failed), remedy or "give another path (--uds)")
        return
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode
        if not mode & stat.S_IXOTH:
            yield note(
                "uds rights",
                f"{each} (mode {mode & 0o777:04o}) lets only its owner and group to the socket: "
                "other users' clients use TCP",
            )
            break
    yield ok("uds", f"{path} can be made, with {len(os.fsencode(longest))} bytes")
