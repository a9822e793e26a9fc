"""A client of xDS that does as it is told: a stream of the aggregated discovery service."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds_names import HAS_CERTIFICATE

__all__ = ["Follower", "ads"]

DISCOVERY = "envoy.service.discovery.v3"
ClusterLoadAssignment = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")
DiscoveryRequest = message_class(f"{DISCOVERY}.DiscoveryRequest")


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def ads(channel: grpc.aio.Channel, *, delta: bool = False, bearer: str = "") -> Any:
    """A stream of the aggregated discovery service."""
    kind = "Delta" if delta else "Stream"
    prefix = "Delta" if delta else ""
    return channel.stream_stream(
        f"/{DISCOVERY}.AggregatedDiscoveryService/{kind}AggregatedResources",
        request_serializer=_bytes,
        response_deserializer=message_class(f"{DISCOVERY}.{prefix}DiscoveryResponse").FromString,
    )(metadata=(("authorization", f"Bearer {bearer}"),) if bearer else None)


class Follower:
    """A client of the state of the world, without gRPC's own rules.

    Args:
        server: host and port.
        zone, node: where it says it is, and what it calls itself.
        credentials: for TLS; by default without.
        bearer: an API key or token to show.
        certificate: it says that it has a certificate for workers.
    """

    def __init__(
        self,
        server: str,
        zone: str = "",
        node: str = "test",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        bearer: str = "",
        certificate: bool = False,
    ) -> None:
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(server)
        else:
            self._channel = grpc.aio.secure_channel(server, credentials)
        self.stream = ads(self._channel, bearer=bearer)
        self._certificate = certificate
        self._zone = zone
        self._node = node

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()
        await self._channel.close()

    async def send(self, type_url: str, *names: str, **more: Any) -> None:
        request = DiscoveryRequest(
            type_url=type_url, resource_names=names, node={"id": self._node}, **more
        )
        request.node.locality.zone = self._zone
        if self._certificate:
            request.node.metadata[HAS_CERTIFICATE] = True
        await self.stream.write(request)

    async def receive(self) -> Any:
        async with asyncio.timeout(10):
            return await self.stream.read()

    async def ask(self, type_url: str, *names: str) -> set[str]:
        await self.send(type_url, *names)
        response = await self.receive()
        assert response.type_url == type_url
        found = set()
        for packed in response.resources:
            assert packed.type_url == type_url
            name = packed.value[2 : 2 + packed.value[1]].decode()  # field 1 of all kinds
            found.add(name)
        return found

    async def endpoints(self) -> list[tuple[str, int, int, int]]:
        """Zone, priority, weight and health of each endpoint of the next response."""
        response = await self.receive()
        (packed,) = response.resources
        found = ClusterLoadAssignment.FromString(packed.value)
        return [
            (
                group.locality.zone,
                group.priority,
                each.load_balancing_weight.value,
                each.health_status,
            )
            for group in found.endpoints
            for each in group.lb_endpoints
        ]
