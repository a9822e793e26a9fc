"""The messages of xDS as Python classes, in a pool of their own.

The packages that publish them compiled bring other projects' messages with them, OpenTelemetry's
among them, in older releases, and write them over what is installed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2, duration_pb2, message_factory, struct_pb2, wrappers_pb2

from fingerpost.basics.proto_file import read_pool

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["FILES", "message_class", "pool", "value_of"]

_FILTERS: Final = "envoy_extensions_filters"
_POLICIES: Final = "envoy_extensions_load_balancing_policies"
# A file after those that it imports.
FILES: Final = (
    "google_rpc.proto",
    "envoy_config_core_v3.proto",
    "envoy_config_endpoint_v3.proto",
    "envoy_config_listener_v3.proto",
    "envoy_config_route_v3.proto",
    "envoy_config_cluster_v3.proto",
    f"{_FILTERS}_http_router_v3.proto",
    f"{_FILTERS}_network_http_connection_manager_v3.proto",
    f"{_POLICIES}_client_side_weighted_round_robin_v3.proto",
    f"{_POLICIES}_least_request_v3.proto",
    f"{_POLICIES}_round_robin_v3.proto",
    f"{_POLICIES}_wrr_locality_v3.proto",
    "envoy_extensions_upstreams_http_v3.proto",
    "envoy_type_matcher_v3.proto",
    "envoy_extensions_transport_sockets_tls_v3.proto",
    "envoy_service_discovery_v3.proto",
)
_SHIPPED: Final = (any_pb2, duration_pb2, struct_pb2, wrappers_pb2)


@cache
def pool() -> DescriptorPool:
    """The pool with all messages of xDS."""
    return read_pool(_SHIPPED, files("fingerpost.proxy.xds") / "protos", FILES)


@cache
def message_class(name: str) -> Any:
    """The class of a message, by its full name, such as `envoy.config.cluster.v3.Cluster`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def value_of(enum: str, name: str) -> int:
    """The number of a value of an enum."""
    return int(pool().FindEnumTypeByName(enum).values_by_name[name].number)
