"""The resources of xDS for the models of a cluster, as protocol buffers.

A client of gRPC asks for a *listener* by the name in its target (`xds:///flowers`). It names a
*cluster* of the same name, and that its *endpoints*: the workers, by zone. An Envoy asks for the
*route configuration* `fingerpost`, whose host names are models, and for all clusters. See
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol and, for what clients of gRPC make
of it, https://github.com/grpc/grpc/blob/master/doc/grpc_xds_features.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fingerpost.proxy.xds.messages import message_class, value_of
from fingerpost.proxy.xds.tls import transport_socket

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fingerpost.proxy.xds.workers import Target, Worker

__all__ = [
    "CLUSTER",
    "ENDPOINTS",
    "LISTENER",
    "ROUTES",
    "cluster",
    "endpoints",
    "listener",
    "routes",
]

_CONFIG: Final = "envoy.config"
_EXTENSIONS: Final = "envoy.extensions"
_POLICIES: Final = f"{_EXTENSIONS}.load_balancing_policies"
_MANAGER: Final = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3"
_WEIGHTED: Final = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"

Packed = message_class("google.protobuf.Any")
Duration = message_class("google.protobuf.Duration")
FloatValue = message_class("google.protobuf.FloatValue")
UInt32Value = message_class("google.protobuf.UInt32Value")
Address = message_class(f"{_CONFIG}.core.v3.Address")
SocketAddress = message_class(f"{_CONFIG}.core.v3.SocketAddress")
Locality = message_class(f"{_CONFIG}.core.v3.Locality")
AggregatedConfigSource = message_class(f"{_CONFIG}.core.v3.AggregatedConfigSource")
ConfigSource = message_class(f"{_CONFIG}.core.v3.ConfigSource")
TypedExtensionConfig = message_class(f"{_CONFIG}.core.v3.TypedExtensionConfig")
Http2ProtocolOptions = message_class(f"{_CONFIG}.core.v3.Http2ProtocolOptions")
HttpProtocolOptions = message_class(f"{_CONFIG}.core.v3.HttpProtocolOptions")
Endpoint = message_class(f"{_CONFIG}.endpoint.v3.Endpoint")
LbEndpoint = message_class(f"{_CONFIG}.endpoint.v3.LbEndpoint")
LocalityLbEndpoints = message_class(f"{_CONFIG}.endpoint.v3.LocalityLbEndpoints")
ClusterLoadAssignment = message_class(f"{_CONFIG}.endpoint.v3.ClusterLoadAssignment")
ApiListener = message_class(f"{_CONFIG}.listener.v3.ApiListener")
Listener = message_class(f"{_CONFIG}.listener.v3.Listener")
RetryPolicy = message_class(f"{_CONFIG}.route.v3.RetryPolicy")
Route = message_class(f"{_CONFIG}.route.v3.Route")
RouteAction = message_class(f"{_CONFIG}.route.v3.RouteAction")
RouteMatch = message_class(f"{_CONFIG}.route.v3.RouteMatch")
VirtualHost = message_class(f"{_CONFIG}.route.v3.VirtualHost")
RouteConfiguration = message_class(f"{_CONFIG}.route.v3.RouteConfiguration")
Cluster = message_class(f"{_CONFIG}.cluster.v3.Cluster")
EdsClusterConfig = message_class(f"{_CONFIG}.cluster.v3.Cluster.EdsClusterConfig")
LoadBalancingPolicy = message_class(f"{_CONFIG}.cluster.v3.LoadBalancingPolicy")
Policy = message_class(f"{_CONFIG}.cluster.v3.LoadBalancingPolicy.Policy")
CircuitBreakers = message_class(f"{_CONFIG}.cluster.v3.CircuitBreakers")
Thresholds = message_class(f"{_CONFIG}.cluster.v3.CircuitBreakers.Thresholds")
OutlierDetection = message_class(f"{_CONFIG}.cluster.v3.OutlierDetection")
Router = message_class(f"{_EXTENSIONS}.filters.http.router.v3.Router")
HttpConnectionManager = message_class(f"{_MANAGER}.HttpConnectionManager")
HttpFilter = message_class(f"{_MANAGER}.HttpFilter")
ClientSideWeightedRoundRobin = message_class(f"{_POLICIES}.{_WEIGHTED}")
LeastRequest = message_class(f"{_POLICIES}.least_request.v3.LeastRequest")
RoundRobin = message_class(f"{_POLICIES}.round_robin.v3.RoundRobin")
WrrLocality = message_class(f"{_POLICIES}.wrr_locality.v3.WrrLocality")
UpstreamProtocol = message_class(f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions")

_HEALTHY: Final = value_of(f"{_CONFIG}.core.v3.HealthStatus", "HEALTHY")
_DRAINING: Final = value_of(f"{_CONFIG}.core.v3.HealthStatus", "DRAINING")
_EDS: Final = value_of(f"{_CONFIG}.cluster.v3.Cluster.DiscoveryType", "EDS")
_V3: Final = value_of(f"{_CONFIG}.core.v3.ApiVersion", "V3")

_TYPE: Final = "type.googleapis.com/"
LISTENER: Final = f"{_TYPE}envoy.config.listener.v3.Listener"
ROUTES: Final = f"{_TYPE}envoy.config.route.v3.RouteConfiguration"
CLUSTER: Final = f"{_TYPE}envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = f"{_TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment"

# A worker that refuses, drains or has gone has not run the request: another one may.
_RETRY_GRPC: Final = "unavailable,resource-exhausted"
_RETRY_HTTP: Final = "connect-failure,refused-stream,reset-before-request,retriable-status-codes"
_RETRY_STATUSES: Final = (429, 503)
_RETRIES: Final = 3
_MAX_REQUESTS: Final = 1 << 20  # a worker refuses by itself what is too much
_CONNECT_S: Final = 2


def _pack(message: Any) -> Any:
    packed = Packed()
    packed.Pack(message, deterministic=True)
    return packed


def _filters() -> list[Any]:
    return [HttpFilter(name="envoy.filters.http.router", typed_config=_pack(Router()))]


_BY_ADS: Final = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=_V3)


def listener(target: Target) -> Any:
    """The listener of a model for clients of gRPC: one route to its cluster, with retries."""
    retry = RetryPolicy(retry_on=_RETRY_GRPC, num_retries=UInt32Value(value=_RETRIES))
    action = RouteAction(cluster=target.cluster, retry_policy=retry)
    # No time limit of the route: the deadline is the caller's.
    action.max_stream_duration.max_stream_duration.CopyFrom(Duration(seconds=0))
    route = Route(match=RouteMatch(prefix=""), route=action)
    name = target.cluster
    manager = HttpConnectionManager(
        route_config=RouteConfiguration(
            name=name, virtual_hosts=[VirtualHost(name=name, domains=["*"], routes=[route])]
        ),
        http_filters=_filters(),
    )
    return _pack(Listener(name=name, api_listener=ApiListener(api_listener=_pack(manager))))


def routes(name: str, targets: Iterable[tuple[Target, Sequence[str]]]) -> Any:
    """The route configuration of an Envoy: from host names to clusters.

    Args:
        name: what the Envoy calls it.
        targets: the models, each with its host names.
    """
    hosts = []
    for target, domains in targets:
        retry = RetryPolicy(
            retry_on=_RETRY_HTTP,
            retriable_status_codes=_RETRY_STATUSES,
            num_retries=UInt32Value(value=_RETRIES),
        )
        action = RouteAction(
            cluster=target.cluster, retry_policy=retry, timeout=Duration(seconds=0)
        )
        route = Route(match=RouteMatch(prefix="/"), route=action)
        hosts.append(VirtualHost(name=target.cluster, domains=list(domains), routes=[route]))
    return _pack(RouteConfiguration(name=name, virtual_hosts=hosts))


def cluster(
    target: Target, names: Iterable[str] | None = None, *, certificate: bool = False
) -> Any:
    """How a client shares its requests between the workers of a model.

    By gRPC in proportion to what the workers report (ORCA), where the client can, else in turn;
    Envoy's HTTP goes to the worker with fewest requests. Either leaves out a worker that fails.

    Args:
        target: the model.
        names, certificate: see `transport_socket`; None is without TLS.
    """
    grpc = target.transport == "grpc"
    protocol = UpstreamProtocol()
    if grpc:
        protocol.explicit_http_config.http2_protocol_options.CopyFrom(Http2ProtocolOptions())
    else:
        protocol.explicit_http_config.http_protocol_options.SetInParent()
        protocol.common_http_protocol_options.CopyFrom(HttpProtocolOptions())
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    made = Cluster(
        name=target.cluster,
        type=_EDS,
        eds_cluster_config=EdsClusterConfig(eds_config=_BY_ADS, service_name=target.cluster),
        connect_timeout=Duration(seconds=_CONNECT_S),
        load_balancing_policy=_by_reported_load() if grpc else _to_the_least_busy(),
        outlier_detection=_OUTLIERS,
        circuit_breakers=CircuitBreakers(
            thresholds=[
                Thresholds(
                    max_requests=UInt32Value(value=_MAX_REQUESTS),
                    max_pending_requests=UInt32Value(value=_MAX_REQUESTS),
                )
            ]
        ),
    )
    made.typed_extension_protocol_options[options].Pack(protocol)
    if names is not None:
        made.transport_socket.CopyFrom(transport_socket(names, certificate=certificate))
    return _pack(made)


def _by_reported_load() -> Any:
    weighted = ClientSideWeightedRoundRobin(
        blackout_period=Duration(seconds=1),
        weight_expiration_period=Duration(seconds=60),
        weight_update_period=Duration(seconds=1),
        error_utilization_penalty=FloatValue(value=1.0),
    )
    here = _policy(("client_side_weighted_round_robin", weighted), ("round_robin", RoundRobin()))
    return _policy(("wrr_locality", WrrLocality(endpoint_picking_policy=here)))


def _to_the_least_busy() -> Any:
    return _policy(("least_request", LeastRequest()))


def _policy(*choices: tuple[str, Any]) -> Any:
    """The first of these that a client knows."""
    return LoadBalancingPolicy(
        policies=[
            Policy(
                typed_extension_config=TypedExtensionConfig(
                    name=f"envoy.load_balancing_policies.{name}", typed_config=_pack(settings)
                )
            )
            for name, settings in choices
        ]
    )


def _number(value: int) -> Any:
    return UInt32Value(value=value)


# Clients of gRPC know failure percentage and success rate, Envoy consecutive failures too.
_OUTLIERS: Final = OutlierDetection(
    interval=Duration(seconds=1),
    base_ejection_time=Duration(seconds=5),
    max_ejection_time=Duration(seconds=60),
    max_ejection_percent=_number(50),
    failure_percentage_threshold=_number(50),
    enforcing_failure_percentage=_number(100),
    failure_percentage_minimum_hosts=_number(2),
    failure_percentage_request_volume=_number(10),
    enforcing_success_rate=_number(0),
    consecutive_gateway_failure=_number(3),
    enforcing_consecutive_gateway_failure=_number(100),
)


def endpoints(target: Target, workers: Iterable[Worker], zone: str) -> Any:
    """The workers of a model by zone; those of the client's own zone come before all others.

    Args:
        target: the model.
        workers: see `workers_of`.
        zone: of the client, as its bootstrap file says; empty where it says none.
    """
    by_zone: dict[str, list[Worker]] = {}
    for each in workers:
        by_zone.setdefault(each.zone, []).append(each)
    near = zone if any(not each.draining for each in by_zone.get(zone, ())) else None
    localities = [
        LocalityLbEndpoints(
            locality=Locality(zone=name),
            priority=0 if near is None or name == near else 1,
            load_balancing_weight=_number(sum(each.weight for each in here)),
            lb_endpoints=[_endpoint(each) for each in here],
        )
        for name, here in sorted(by_zone.items())
    ]
    return _pack(ClusterLoadAssignment(cluster_name=target.cluster, endpoints=localities))


def _endpoint(worker: Worker) -> Any:
    address = Address(socket_address=SocketAddress(address=worker.host, port_value=worker.port))
    return LbEndpoint(
        endpoint=Endpoint(address=address),
        health_status=_DRAINING if worker.draining else _HEALTHY,
        load_balancing_weight=_number(worker.weight),
    )
