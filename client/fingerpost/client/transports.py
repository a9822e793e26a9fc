"""Makes the transport that the settings name, and imports no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.transport.transport import Transport
from fingerpost.errors import ConfigurationError
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.route.route import Route
    from fingerpost.client.transport.deadlines import DeadlineScheduler
    from fingerpost.security.tls import TlsConfig

__all__ = ["make_transport"]


def make_transport(
    config: ClientConfig, deadlines: DeadlineScheduler, route: Route, tls: TlsConfig | None
) -> Transport:
    """The transport of a client. Call it inside a running event loop.

    Raises:
        ConfigurationError: the extra `zmq` is not installed.
    """
    if config.transport != "zmq":
        return Transport(config, deadlines, route, ClientTls(tls))
    from fingerpost.client.zmq.route import ZmqRoute

    if not isinstance(route, ZmqRoute):
        raise ConfigurationError(f"transport='zmq' does not go with {type(route).__name__}")
    try:
        from fingerpost.client.zmq.transport import ZmqTransport
    except ImportError as error:
        raise ConfigurationError(
            f"transport='zmq' needs ZeroMQ ({error}): pip install 'fingerpost[zmq]'"
        ) from error
    return ZmqTransport(config, deadlines, route, ClientTls(tls))
