"""Triton's system shared memory by v2: its calls, and the regions that inference uses.

Written after
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fingerpost.errors import ImageTooLarge, InvalidRequest, Unauthorized
from fingerpost.registry.http.app import json_response
from fingerpost.registry.own_address import is_own_address
from fingerpost.worker.protocols.json_values import decode_json
from fingerpost.worker.protocols.v2.binary import MAX_NAME
from fingerpost.worker.protocols.v2.messages import Count
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.routes import ProtocolRoutes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiohttp import web

    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.protocols.v2.messages import InferRequest, RequestedInput
    from fingerpost.worker.protocols.v2.shared_regions import Region, SharedRegions
    from fingerpost.worker.serving.memory import BodyMemory, Held
    from fingerpost.worker.serving.routes import RouteContext

__all__ = ["InputBytes", "OutputRegions", "SharedMemory"]

_PATH: Final = "/v2/systemsharedmemory"
_MAX_ORDER_BYTES: Final = 4096
_NONE: Final[Mapping[int, memoryview]] = MappingProxyType({})


class _Order(msgspec.Struct):
    """The body of a registration."""

    key: str
    byte_size: Count
    offset: Count = 0


class InputBytes(NamedTuple):
    """The bytes of a request's inputs: behind the JSON, and by the number of those in regions."""

    behind: memoryview
    shared: Mapping[int, memoryview] = _NONE

    @property
    def all(self) -> memoryview:
        """The bytes of the only input."""
        return self.shared.get(0, self.behind)

    def each(self, wanted: Sequence[RequestedInput]) -> Iterator[memoryview]:
        """The bytes of each input, in their order.

        Raises:
            InvalidRequest: after the last one, if bytes are left.
        """
        behind = self.behind
        for number, one in enumerate(wanted):
            if number in self.shared:
                yield self.shared[number]
            else:
                size = one.parameters.binary_data_size or 0
                yield behind[:size]
                behind = behind[size:]
        if behind:
            raise InvalidRequest(f"{len(behind):,} bytes follow those of the inputs")


class OutputRegions:
    """Where the outputs of a request are written."""

    def __init__(self, asked: InferRequest, regions: Sequence[Region]) -> None:
        self._asked = asked
        left = iter(regions)
        self._regions = [
            None if each.parameters.shared_memory_region is None else next(left)
            for each in asked.outputs
        ]
        for number, region in enumerate(self._regions):
            if region is not None:
                wanted = asked.outputs[number].parameters
                if wanted.classification:
                    raise InvalidRequest(
                        f"{_output(asked, number)}: labels are not written into shared memory, but "
                        "are part of the answer: leave the region out"
                    )
                region.check(
                    wanted.shared_memory_offset,
                    wanted.shared_memory_byte_size,
                    _output(asked, number),
                )

    def named(self, number: int) -> bool:
        """Whether an output goes into a region; those of a request without outputs do not."""
        return number < len(self._regions) and self._regions[number] is not None

    async def placed(
        self,
        entries: Sequence[dict[str, object]],
        wishes: Sequence[tuple[str, bool]],
        payloads: Sequence[bytes],
    ) -> list[bytes]:
        """Write the outputs that go into regions; return the payloads of the others.

        Args:
            entries: of all outputs in the answer; those that are written get other `parameters`.
            wishes: their names, and whether as bytes: as many have a payload, in this order.
            payloads: the bytes.
        """
        left = iter(payloads)
        others = []
        for number, (entry, (_, binary)) in enumerate(zip(entries, wishes, strict=True)):
            if binary:
                payload = next(left)
                if self.named(number):
                    entry["parameters"] = await self.write(number, payload)
                else:
                    others.append(payload)
        return others

    async def write(self, number: int, payload: bytes) -> dict[str, object]:
        """Write an output; return its `parameters` in the answer.

        Raises:
            InvalidRequest: it has more bytes than its place, or the region has become shorter.
        """
        region, wanted = self._regions[number], self._asked.outputs[number].parameters
        what = _output(self._asked, number)
        if region is None:
            raise RuntimeError(f"{what} goes into no region")
        if len(payload) > wanted.shared_memory_byte_size:
            raise InvalidRequest(
                f"{what} has {len(payload):,} bytes, and shared_memory_byte_size is "
                f"{wanted.shared_memory_byte_size:,}: give it more"
            )
        await region.write(payload, wanted.shared_memory_offset, what)
        placed: dict[str, object] = {
            "shared_memory_region": region.name,
            "shared_memory_byte_size": len(payload),
        }
        if wanted.shared_memory_offset:
            placed["shared_memory_offset"] = wanted.shared_memory_offset
        return placed


class SharedMemory:
    """The calls, and what requests use of the regions; `add_to` makes the routes.

    Args:
        regions: those that are registered.
        memory: counts the bytes of inputs, as those of bodies.
        max_bytes: most bytes of a request's inputs.
    """

    def __init__(self, regions: SharedRegions, memory: BodyMemory, *, max_bytes: int) -> None:
        self._regions = regions
        self._memory = memory
        self._max_bytes = max_bytes

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""
        routes = ProtocolRoutes(context, "/v2", message_error)
        for path in (_PATH, f"{_PATH}/region/{{name}}"):
            routes.get(f"{path}/status", self._status)
            routes.post(f"{path}/unregister", self._unregister)
        routes.post(f"{_PATH}/region/{{name}}/register", self._register)
        context.app.on_cleanup.append(self._close)

    @contextmanager
    def outputs(self, request: RequestHead, asked: InferRequest) -> Iterator[OutputRegions]:
        """The regions of a request's outputs, which stay open inside the `with` block.

        Raises:
            UnknownPath, Unauthorized: shared memory is off, or the client is on another host.
            InvalidRequest: a region that is not registered, or a place that is not within it.
        """
        names = [
            each.parameters.shared_memory_region
            for each in asked.outputs
            if each.parameters.shared_memory_region is not None
        ]
        if names:
            self._check(request)
        with self._regions.using(names, "an output") as found:
            yield OutputRegions(asked, found)

    async def inputs(
        self, request: RequestHead, asked: InferRequest, behind: memoryview, held: Held
    ) -> InputBytes:
        """The bytes of a request's inputs, those in regions as a copy.

        Raises:
            UnknownPath, Unauthorized: shared memory is off, or the client is on another host.
            InvalidRequest: a region that is not registered, or a place that is not within it.
            ImageTooLarge: more bytes than a request may have.
            Overloaded: no memory for them.
        """
        placed = {
            number: each
            for number, each in enumerate(asked.inputs)
            if each.parameters.shared_memory_region is not None
        }
        if not placed:
            return InputBytes(behind)
        self._check(request)
        total = len(behind) + sum(x.parameters.shared_memory_byte_size for x in placed.values())
        most = held.grant.max_body_bytes
        most = self._max_bytes if most is None else min(most, self._max_bytes)
        if total > most:
            raise ImageTooLarge(
                f"the inputs have {total:,} bytes, over the limit of {most:,}: send less"
            )
        self._memory.take(held, total - len(behind))
        names = [each.parameters.shared_memory_region or "" for each in placed.values()]
        shared: dict[int, memoryview] = {}
        with self._regions.using(names, "an input") as regions:
            for (number, each), region in zip(placed.items(), regions, strict=True):
                parameters = each.parameters
                shared[number] = await region.read(
                    parameters.shared_memory_offset,
                    parameters.shared_memory_byte_size,
                    f"input {each.name[:MAX_NAME]!r}",
                )
        return InputBytes(behind, shared)

    def register(self, head: RequestHead, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region for a client on this host.

        Raises:
            UnknownPath, Unauthorized: shared memory is off, or the client is on another host.
            InvalidRequest, Overloaded: see `SharedRegions.register`.
        """
        self._check(head)
        self._regions.register(name, key, offset, byte_size)

    def unregister(self, head: RequestHead, name: str = "") -> None:
        """Forget a region, or all of them. Raises as `register`."""
        self._check(head)
        self._regions.unregister(name)

    def status(self, head: RequestHead, name: str = "") -> list[dict[str, object]]:
        """A region, or all of them. Raises as `register`."""
        self._check(head)
        return self._regions.status(name)

    async def _close(self, _: web.Application) -> None:
        self._regions.close()

    async def _register(self, request: web.Request) -> web.Response:
        self._check(request)
        body = await request.content.read(_MAX_ORDER_BYTES + 1)
        if len(body) > _MAX_ORDER_BYTES:
            raise ImageTooLarge(f"a registration has at most {_MAX_ORDER_BYTES:,} bytes")
        order = decode_json(body, _Order, "the registration")
        name = request.match_info["name"]
        self.register(request, name, order.key, order.offset, order.byte_size)
        return json_response({})

    async def _unregister(self, request: web.Request) -> web.Response:
        self.unregister(request, request.match_info.get("name", ""))
        return json_response({})

    async def _status(self, request: web.Request) -> web.Response:
        return json_response(self.status(request, request.match_info.get("name", "")))

    def _check(self, request: RequestHead) -> None:
        """Raise where shared memory is off, or the client cannot have any with the worker."""
        self._regions.check_enabled()
        if "Origin" in request.headers:  # a browser on this host, by whichever page
            raise Unauthorized("shared memory is not for web pages: use a program")
        client = request.remote or ""
        if client.startswith("uid ") or _is_loopback(client) or is_own_address(client):
            return
        raise Unauthorized(
            f"shared memory is for clients on this host, and {client or 'the client'} is not: send "
            "the bytes"
        )


def _is_loopback(client: str) -> bool:
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


def _output(asked: InferRequest, number: int) -> str:
    return f"output {asked.outputs[number].name[:MAX_NAME]!r}"
