"""The settings of a worker's ZeroMQ port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ZmqConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZmqConfig:
    """Whether and how a worker serves ZeroMQ; needs the extra `zmq`.

    Attributes:
        port: the port to listen on, 0 to 65535. 0 lets the system pick a free one. None, the
            default, serves none.
        key: the file of the worker's key pair, with which its connections are encrypted (CURVE).
            None, the default, encrypts nothing.
        clients: the file of the public keys of clients, which is read again when it changes; only
            these clients are let in. None, the default, lets all in.
    """

    port: int | None = None
    key: Path | None = None
    clients: Path | None = None

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ConfigurationError(f"zmq.port {self.port} is not in 0..65535 (0: a free one)")
        for name, value, option in (
            ("key", self.key, "--zmq-key"),
            ("clients", self.clients, "--zmq-clients"),
        ):
            if value is not None and self.port is None:
                raise ConfigurationError(
                    f"zmq.{name} {str(value)!r} is of use only with zmq.port: give --zmq-port too, "
                    f"or leave out {option}"
                )
        if self.clients is not None and self.key is None:
            raise ConfigurationError(
                f"zmq.clients {str(self.clients)!r} needs zmq.key: keys of clients are checked "
                "only with CURVE, so give --zmq-key too"
            )
