"""Whether this proxy reaches a machine that asks it: `fingerpost doctor` on a new node.

A server that opens connections for others is asked to open them to machines that only it reaches
(SSRF). So a caller names neither host nor path: the proxy asks the address that the question comes
from, whatever a header says, at an unprivileged port, for one path. It follows no redirect, and
says of the answer only whether it is the expected one. It does so once at a time for an address,
or a /64 of IPv6. Bytes for measuring go only to one who has answered the question, at most 4 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web

from fingerpost.basics.remote_network import remote_network
from fingerpost.client.reach import (
    MEASURE_S,
    MEASURED_BYTES,
    NONCE,
    REACH_PATH,
    REACHED_PATH,
    ReachAnswer,
    SpeedMeter,
    filler,
    reached_body,
)
from fingerpost.errors import InvalidRequest, Overloaded, PeerError, Unauthorized
from fingerpost.registry.http.app import json_response
from fingerpost.registry.http.browser_guard import BrowserGuard
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.registry.instance import format_address
from fingerpost.registry.peers.session import PeerSession, peer_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.registry.access import Callers

__all__ = ["ReachCheck"]

_TIMEOUT_S: Final = 3.0
_MAX_BYTES: Final = 256
# Questions at once, of all addresses; one of each.
_MOST: Final = 8


class ReachCheck:
    """Adds the route; close it with `aclose`.

    Args:
        callers: who may ask.
        host: the proxy's own host name, for web pages of its own origin.
    """

    def __init__(self, callers: Callers, host: str) -> None:
        self._callers = callers
        self._guard = BrowserGuard.of([host])
        self._asking: set[str] = set()
        self._session = PeerSession(max_bytes=_MAX_BYTES)

    def add_to(self, app: web.Application) -> None:
        """Add the route to a proxy's application."""
        app.router.add_post(REACH_PATH, self._post_reach)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.aclose()

    async def _post_reach(self, request: web.Request) -> web.Response:
        """`POST /v1/reach?port=N&nonce=HEX&measure=1`: see `fingerpost.client.reach`.

        Raises:
            Unauthorized: a web page of another origin.
            InvalidRequest: a port or nonce that is not valid.
            Overloaded: it is asking that address already, or many others.
        """
        received_at = time.time()
        if (problem := self._guard.check_origin(request.headers)) is not None:
            raise Unauthorized(problem)
        await self._callers.identify(request, "reach")
        check_parameters(request.query, ("port", "nonce", "measure"))
        port, nonce = _port(request.query.get("port", "")), request.query.get("nonce", "")
        if NONCE.fullmatch(nonce) is None:
            raise InvalidRequest("nonce is not valid: use 32 hexadecimal digits, in lower case")
        address = _peer(request)
        network = remote_network(address)
        if network in self._asking or len(self._asking) >= _MOST:
            raise Overloaded("this proxy is asking already: try again later", retry_after_s=1.0)
        self._asking.add(network)
        began = time.monotonic()
        try:
            problem = await self._ask(address, port, nonce)
            answer_s = time.monotonic() - began
            mbit = 0.0
            if problem is None and request.query.get("measure") == "1":
                mbit = await _measure(
                    f"http://{format_address(address, port)}{REACHED_PATH}{nonce}"
                )
        finally:
            self._asking.discard(network)
        answer = ReachAnswer(
            address=address,
            port=port,
            reached=problem is None,
            problem=problem or "",
            answer_s=answer_s,
            received_mbit=mbit,
            received_at=received_at,
            answered_at=time.time(),
        )
        return json_response(answer)

    async def _ask(self, address: str, port: int, nonce: str) -> str | None:
        """Ask; return why there is no answer, and None if there is."""
        peer = format_address(address, port)
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._session.request("GET", f"http://{peer}{REACHED_PATH}{nonce}") as response,
            ):
                if await self._session.read(response, peer) == reached_body(nonce):
                    return None
                return "another server answers there"
        except TimeoutError:
            return f"no answer within {_TIMEOUT_S:g} s"
        except PeerError:
            return "another server answers there"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            found = str(peer_error(error, peer))
            return found.removeprefix(f"{peer}: ")


async def _measure(url: str) -> float:
    """Take bytes from there and then send some; how fast they came, and 0 where they did not."""
    meter = SpeedMeter()
    async with PeerSession(max_bytes=MEASURED_BYTES) as session:
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            async with (
                asyncio.timeout(MEASURE_S),
                session.request("GET", f"{url}?measure=1") as response,
            ):
                async for piece in response.content.iter_any():
                    meter.add(len(piece), time.monotonic())
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            async with (
                asyncio.timeout(MEASURE_S),
                session.request("POST", url, data=_pieces()) as response,
            ):
                await response.content.read(_MAX_BYTES)
    return meter.mbit


async def _pieces() -> AsyncIterator[bytes]:
    for piece in filler():
        yield piece


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1024 <= int(text) <= 65535):
        raise InvalidRequest(f"port={text[:20]} is not valid: use 1024 to 65535")
    return int(text)


def _peer(request: web.Request) -> str:
    """The address at the other end of the connection."""
    transport = request.transport
    name: Any = None if transport is None else transport.get_extra_info("peername")
    try:
        address = ipaddress.ip_address(name[0].partition("%")[0])
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidRequest("the caller has no IP address to ask back") from error
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
