"""`python -m benchmarks.xds.clients SERVER COUNT WORKERS`: so many clients of xDS.

Each has a connection of its own and follows listener, cluster and endpoints of the service, as a
client of gRPC does; it accepts each response, and keeps nothing of it. Prints `following` when all
of them know so many workers, and for each change, once all have been told of it, the times of this
machine's monotonic clock at which the middle one and the last one were.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

import grpc

from benchmarks.growth.fleet import SERVICE
from fingerpost.proxy.xds.messages import message_class
from fingerpost.proxy.xds.resources import CLUSTER, ENDPOINTS, LISTENER

_DISCOVERY: Final = "envoy.service.discovery.v3"
_METHOD: Final = f"/{_DISCOVERY}.AggregatedDiscoveryService/StreamAggregatedResources"
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)
_AT_ONCE: Final = 50
_Request = message_class(f"{_DISCOVERY}.DiscoveryRequest")
_Response = message_class(f"{_DISCOVERY}.DiscoveryResponse")
_Assignment = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")


class Crowd:
    """All clients of this process.

    Args:
        server: host and port of the proxy's xDS.
        count: how many clients.
        workers: how many workers each must know before it counts as following.
    """

    def __init__(self, server: str, count: int, workers: int) -> None:
        self._server = server
        self._count = count
        self._workers = workers
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self._following = 0
        self._told: list[float] = []

    async def run(self) -> None:
        """Until a connection breaks."""
        await asyncio.gather(*(self._follow(number) for number in range(self._count)))

    async def _follow(self, number: int) -> None:
        async with grpc.aio.insecure_channel(self._server, options=_OPTIONS) as channel:
            async with self._opening:
                stream: Any = channel.stream_stream(
                    _METHOD,
                    request_serializer=_Request.SerializeToString,
                    response_deserializer=_Response.FromString,
                )()
                for url in (LISTENER, CLUSTER, ENDPOINTS):
                    node = {"id": f"client-{number}"}
                    await stream.write(_Request(type_url=url, resource_names=[SERVICE], node=node))
                    found = await self._accepted(stream)
            while self._known(found) < self._workers:
                found = await self._accepted(stream)
            self._following += 1
            if self._following == self._count:
                print("following", flush=True)
            while True:
                await self._accepted(stream)
                self._note()

    async def _accepted(self, stream: Any) -> Any:
        """The next response, which is accepted."""
        found = await stream.read()
        if not found:  # the mark of the stream's end
            raise RuntimeError("the proxy has ended the call")
        await stream.write(
            _Request(
                type_url=found.type_url,
                resource_names=[SERVICE],
                version_info=found.version_info,
                response_nonce=found.nonce,
            )
        )
        return found

    def _note(self) -> None:
        self._told.append(time.monotonic())
        if len(self._told) == self._count:
            print(json.dumps([self._told[self._count // 2], self._told[-1]]), flush=True)
            self._told = []

    @staticmethod
    def _known(found: Any) -> int:
        """How many workers a response has."""
        if found.type_url != ENDPOINTS or not found.resources:
            return 0
        groups = _Assignment.FromString(found.resources[0].value).endpoints
        return sum(len(each.lb_endpoints) for each in groups)


if __name__ == "__main__":
    asyncio.run(Crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run())
