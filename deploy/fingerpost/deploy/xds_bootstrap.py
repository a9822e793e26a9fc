"""The files by which clients of xDS find a proxy: gRPC's bootstrap file, and Envoy's configuration.

gRPC's is described in https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["envoy_bootstrap", "grpc_bootstrap", "split_server"]

DEFAULT_PORT: Final = 12482
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_TYPE: Final = "type.googleapis.com/"
_MANAGER: Final = (
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_BY_ADS: Final = {"ads": {}, "resource_api_version": "V3"}


def split_server(text: str) -> tuple[str, int]:
    """Host and port of `proxy:12482`, `proxy` or `[::1]:12482`.

    Raises:
        ConfigurationError: it is not an address, such as a URL.
    """
    found = _SERVER.fullmatch(text)
    port = int(found[2] or DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ConfigurationError(
            f"{text!r} is not the address of a proxy's xDS server: give host:port, such as "
            f"proxy-1:{DEFAULT_PORT}"
        )
    return found[1].strip("[]"), port


def grpc_bootstrap(
    servers: Sequence[tuple[str, int]], *, zone: str = "", ca: str | None = None
) -> dict[str, Any]:
    """The bootstrap file of a client of gRPC: `GRPC_XDS_BOOTSTRAP` names it.

    Args:
        servers: proxies; a client takes the next one where one cannot be reached, if its release
            can.
        zone: of the client: workers of its zone come first.
        ca: file of the authorities of the proxies' certificates; None is plain text.
    """
    credentials: dict[str, Any] = {"type": "insecure"}
    if ca is not None:
        credentials = {"type": "tls", "config": {"ca_certificate_file": ca}}
    return {
        "xds_servers": [
            {
                "server_uri": f"{f'[{host}]' if ':' in host else host}:{port}",
                "channel_creds": [credentials],
                "server_features": ["xds_v3"],
            }
            for host, port in servers
        ],
        "node": _node(zone),
    }


def envoy_bootstrap(
    servers: Sequence[tuple[str, int]], listen: tuple[str, int], *, zone: str = ""
) -> dict[str, Any]:
    """The configuration of an Envoy beside a plain HTTP program, which sends its requests there.

    `http://HOST:PORT` of the Envoy with `Host: flowers` is a worker of `flowers`.

    Args:
        servers: proxies.
        listen: where the Envoy listens.
        zone: see `grpc_bootstrap`.
    """
    protocol = {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": _TYPE + _MANAGER,
        "stat_prefix": "fingerpost",
        "rds": {"route_config_name": "fingerpost", "config_source": _BY_ADS},
        "http_filters": [router],
    }
    return {
        "node": _node(zone),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "fingerpost-proxies"}}],
            },
            "cds_config": _BY_ADS,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "fingerpost-proxies",
                    "type": "STRICT_DNS",
                    "connect_timeout": "2s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol
                    },
                    "load_assignment": {
                        "cluster_name": "fingerpost-proxies",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": _address(host, port)}}
                                    for host, port in servers
                                ]
                            }
                        ],
                    },
                }
            ],
            "listeners": [
                {
                    "name": "fingerpost",
                    "address": _address(*listen),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
        },
    }


def _node(zone: str) -> dict[str, Any]:
    # Clients in JavaScript refuse a file without a locality.
    return {
        "id": f"{socket.gethostname()}-{os.getpid()}",
        "cluster": "fingerpost",
        "locality": {"zone": zone} if zone else {},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
