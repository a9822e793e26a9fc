"""`python -m benchmarks.lookups.listening PORT COMMAND...`: run it with a listening socket.

Others may listen at that port too (SO_REUSEPORT), and the kernel shares the connections out: what
systemd does with `ReusePort=yes` in the socket unit of a template, `fingerpost-proxy@.socket`.
"""

from __future__ import annotations

import os
import socket
import sys

_FIRST_FD = 3  # sd_listen_fds(3)


def main() -> None:
    """Listen, hand over, become the command."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(1024)
    os.dup2(listener.fileno(), _FIRST_FD)
    os.set_inheritable(_FIRST_FD, True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - it is the caller's


if __name__ == "__main__":
    main()
