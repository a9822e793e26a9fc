"""The files by which clients of xDS find a proxy: gRPC's bootstrap file, and Envoy's configuration.

gRPC's is described in https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md,
its credentials in A29, A65 and A97 there.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.proxy.xds_names import HAS_CERTIFICATE, PROVIDER

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ClientFiles", "envoy_bootstrap", "grpc_bootstrap", "split_server"]

DEFAULT_PORT: Final = 12482
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_TYPE: Final = "type.googleapis.com/"
_MANAGER: Final = (
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_REREAD: Final = "60s"
_BY_ADS: Final = {"ads": {}, "resource_api_version": "V3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """By which files a client knows proxies and workers, and they know it.

    Attributes:
        ca: the authorities of the certificates of proxies and workers; None is without TLS.
        cert, key: the client's own certificate and its key, shown to proxies and workers.
        token_file: a token (JWT) that proxies are shown; clients of gRPC read it again by
            themselves.

    Raises:
        ConfigurationError: one of them needs another one.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("give both --tls-cert and --tls-key, or neither")
        if self.ca is None and (self.cert is not None or self.token_file is not None):
            raise ConfigurationError(
                "--tls-cert and --token-file have an effect only with TLS: name the authorities of "
                "the proxies' certificates (--tls-ca)"
            )

    @property
    def watched(self) -> dict[str, str]:
        """The settings of gRPC's provider of certificates, which reads files again."""
        found = {
            "ca_certificate_file": self.ca,
            "certificate_file": self.cert,
            "private_key_file": self.key,
            "refresh_interval": _REREAD,
        }
        return {name: value for name, value in found.items() if value is not None}


WITHOUT_TLS: Final = ClientFiles()


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
    servers: Sequence[tuple[str, int]], *, zone: str = "", files: ClientFiles = WITHOUT_TLS
) -> dict[str, Any]:
    """The bootstrap file of a client of gRPC: `GRPC_XDS_BOOTSTRAP` names it.

    Args:
        servers: proxies; a client takes the next one where one cannot be reached, if its release
            can.
        zone: of the client: workers of its zone come first.
        files: for TLS.
    """
    node, tls = _node(zone), files.ca is not None
    if files.cert is not None:
        node["metadata"] = {HAS_CERTIFICATE: True}
    settings: dict[str, Any] = {
        "channel_creds": [
            {"type": "tls", "config": files.watched} if tls else {"type": "insecure"}
        ],
        "server_features": ["xds_v3"],
    }
    if files.token_file is not None:
        settings["call_creds"] = [
            {"type": "jwt_token_file", "config": {"jwt_token_file": files.token_file}}
        ]
    made = {
        "xds_servers": [
            {"server_uri": f"{f'[{host}]' if ':' in host else host}:{port}", **settings}
            for host, port in servers
        ],
        "node": node,
    }
    if tls:
        provider = {"plugin_name": "file_watcher", "config": files.watched}
        made["certificate_providers"] = {PROVIDER: provider}
    return made


def envoy_bootstrap(
    servers: Sequence[tuple[str, int]],
    listen: tuple[str, int],
    *,
    zone: str = "",
    files: ClientFiles = WITHOUT_TLS,
    credential: str = "",
) -> dict[str, Any]:
    """The configuration of an Envoy beside a plain HTTP program, which sends its requests there.

    `http://HOST:PORT` of the Envoy with `Host: flowers` is a worker of `flowers`.

    Args:
        servers: proxies.
        listen: where the Envoy listens.
        zone, files: see `grpc_bootstrap`; its `token_file` is not read.
        credential: an API key or a token that proxies are shown; it stands in the configuration.
    """
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "fingerpost-proxies"}}
    if credential:
        service["initial_metadata"] = [{"key": "authorization", "value": f"Bearer {credential}"}]
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
                "grpc_services": [service],
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
                    **_transport_socket([host for host, _ in servers], files),
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


def _transport_socket(hosts: Sequence[str], files: ClientFiles) -> dict[str, Any]:
    """How an Envoy connects to proxies with TLS, whose certificates have their host."""
    if files.ca is None:
        return {}
    tls: dict[str, Any] = {
        "validation_context": {
            "trusted_ca": {"filename": files.ca},
            "match_typed_subject_alt_names": [
                {"san_type": _san_type(host), "matcher": {"exact": host}} for host in hosts
            ],
        }
    }
    if files.cert is not None:
        tls["tls_certificates"] = [
            {"certificate_chain": {"filename": files.cert}, "private_key": {"filename": files.key}}
        ]
    config = {"@type": _TYPE + _TLS, "common_tls_context": tls}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _san_type(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"


def _node(zone: str) -> dict[str, Any]:
    # Clients in JavaScript refuse a file without a locality.
    return {
        "id": f"{socket.gethostname()}-{os.getpid()}",
        "cluster": "fingerpost",
        "locality": {"zone": zone} if zone else {},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
