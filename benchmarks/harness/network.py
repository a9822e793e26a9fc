"""Several hosts on one machine: network namespaces on a bridge, each with a link of a set rate."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Network"]


class Network:
    """Hosts and a switch, each in a namespace of its own; the machine's own network is untouched.

    Both ends of a link are shaped by a token bucket (`tc tbf`), so that both directions have the
    rate. Needs root.

    Args:
        links_mbit: each host's link, in Mbit/s.
    """

    def __init__(self, links_mbit: Mapping[str, float]) -> None:
        self._links = dict(links_mbit)
        self._prefix = f"fp{os.getpid()}-"
        self._made: list[str] = []
        self.address = {name: f"10.99.0.{n}" for n, name in enumerate(self._links, 1)}

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            RuntimeError: not root, or the machine lacks `ip`, namespaces, bridges or `tbf`.
        """
        if os.geteuid():
            raise RuntimeError("network namespaces need root: run this benchmark with sudo")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that they are deleted
        try:
            self._add("switch")
            self._run("switch", "ip", "link", "add", "bridge", "type", "bridge")
            self._run("switch", "ip", "link", "set", "bridge", "up")
            for number, (name, mbit) in enumerate(self._links.items()):
                self._attach(name, mbit, f"port{number}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the namespaces, and with them all links."""
        for namespace in reversed(self._made):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, timeout=30)
        self._made.clear()

    def inside(self, host: str) -> list[str]:
        """The words before a command that is to run on that host."""
        return ["ip", "netns", "exec", self._prefix + host]

    def received(self, host: str) -> int:
        """Bytes that a host's link has carried to it, headers included."""
        output = self._run(host, "cat", "/sys/class/net/eth0/statistics/rx_bytes")
        return int(output)

    def _attach(self, host: str, mbit: float, port: str) -> None:
        self._add(host)
        self._run("switch", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0",
                  "netns", self._prefix + host)  # fmt: skip
        self._run("switch", "ip", "link", "set", port, "master", "bridge", "up")
        self._run(host, "ip", "address", "add", f"{self.address[host]}/24", "dev", "eth0")
        self._run(host, "ip", "link", "set", "lo", "up")
        self._run(host, "ip", "link", "set", "eth0", "up")
        for where, device in ((host, "eth0"), ("switch", port)):
            # No more than a frame a packet: a bucket that is charged for a 64 KB one at a time
            # lets bursts through that no real link has.
            self._run(where, "ethtool", "-K", device, "gso", "off", "tso", "off", "gro", "off",
                      optional=True)  # fmt: skip
            self._run(where, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate",
                      f"{mbit}mbit", "burst", "64kb", "latency", "50ms")  # fmt: skip

    def _add(self, host: str) -> None:
        _run("ip", "netns", "add", self._prefix + host)
        self._made.append(self._prefix + host)

    def _run(self, host: str, *command: str, optional: bool = False) -> str:
        return _run(*self.inside(host), *command, optional=optional)


def _run(*command: str, optional: bool = False) -> str:
    try:
        return subprocess.run(
            command, check=not optional, capture_output=True, text=True, timeout=30
        ).stdout
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error.strerror}; install iproute2") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)}: {error.stderr.strip()}") from error
