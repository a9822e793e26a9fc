"""TCP ports on loopback that nothing listens on."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port", "free_ports"]

# Below the range from which systems take the ports of outgoing connections and of servers on
# port 0: nothing else takes one between its choice here and its use.
_RANGE = range(15_000, 32_000)


def free_ports(count: int, addresses: tuple[str, ...] = ("127.0.0.1",)) -> list[int]:
    """Different ports, each of which is free at all of the addresses."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            port = random.SystemRandom().choice(_RANGE)
            try:
                for address in addresses:
                    stack.enter_context(socket.socket()).bind((address, port))
            except OSError:
                continue
            ports.append(port)
    return ports


def free_port() -> int:
    """A port of 127.0.0.1 that is free."""
    return free_ports(1)[0]
