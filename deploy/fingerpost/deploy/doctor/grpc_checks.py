"""Whether ports can be served here: free, and the packages of gRPC, xDS and ZeroMQ installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import Finding, error, ok
from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.app import bind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["check_grpc", "check_ports"]

# What each extra brings; `grpc` has all that `xds` has.
_MODULES: Final = {
    "grpc": ("google.protobuf", "grpc", "grpc_health", "grpc_reflection"),
    "xds": ("google.protobuf", "grpc"),
    "zmq": ("zmq",),
}


def check_grpc(ports: Mapping[str, int], *, port: int, running: bool) -> Iterator[Finding]:
    """The findings for the ports of gRPC.

    Args:
        ports: by extra, `grpc`, `xds` or `zmq`, the port that is to be served; 0 takes a free one.
        port: that of HTTP here.
        running: whether what serves them may run already, and has them.
    """
    for extra, number in ports.items():
        missing = [each for each in _MODULES[extra] if not _installed(each)]
        if missing:
            text = f"the extra {extra} is not installed: {', '.join(missing)} missing"
            yield error(extra, text, f"pip install 'fingerpost[{extra}]'")
        elif number and number == port:
            text = f"port {number} is that of HTTP, too"
            yield error(extra, text, f"give another one with --{extra}-port")
        elif number and not running and (taken := _taken(number)):
            remedy = f"stop what uses the port, or give another one (--{extra}-port)"
            yield error(extra, taken, remedy)
        else:
            yield ok(extra, f"port {number} is free" if number and not running else "installed")


def check_ports(ports: Iterable[int]) -> Iterator[Finding]:
    """The findings for ports of HTTP that cannot be listened on."""
    for number in ports:
        if taken := _taken(number):
            yield error("port", taken, "stop what uses the port, or give another one (--port)")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _taken(port: int) -> str:
    """Why a port cannot be listened on; empty if it can."""
    try:
        bind("0.0.0.0", port).close()  # noqa: S104 - as a worker or proxy will
    except ConfigurationError as failed:
        return str(failed)
    return ""
