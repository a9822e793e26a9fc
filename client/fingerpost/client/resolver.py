"""Step 1: look up where the workers are, through proxies or straight in a registry."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import aiohttp
import msgspec
from yarl import URL

from fingerpost.client.wire import INDEX_HEADER, ResolveAnswer, ServiceEntry, ServicesAnswer
from fingerpost.errors import (
    BadAnswer,
    ConfigurationError,
    FingerpostError,
    NoWorker,
    RegistryUnreachable,
    UnknownService,
    Unreachable,
    error_from_json,
)
from fingerpost.registry import Snapshot, Watch
from fingerpost.registry.names import check_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.registry import Registry

__all__ = ["ProxyResolver", "RegistryResolver", "Resolver", "proxy_url"]

# How much longer than the requested wait a proxy may take. The watch allows 5 s, so that there is
# time to ask the next proxy within the same poll if one hangs.
_SLACK_S: Final = 2.0

A = TypeVar("A")


class Resolver(Protocol):
    """The source of a client's snapshots."""

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every call returns the same one."""
        ...

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        ...

    async def withdrawn(self) -> dict[str, tuple[str, ...]]:
        """By service, the ids of workers that are drained or not well. Raises `RegistryError`."""
        ...

    async def aclose(self) -> None:
        """End the watches and connections that this resolver has opened."""
        ...


class RegistryResolver:
    """Reads a registry directly, and closes it if it is `owned`."""

    def __init__(self, registry: Registry, *, owned: bool) -> None:
        self._registry = registry
        self._owned = owned

    def watch(self, service: str) -> Watch[Snapshot]:
        """The registry's watch of one service."""
        return self._registry.watch(service)

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        return (await self._registry.catalog()).services

    async def withdrawn(self) -> dict[str, tuple[str, ...]]:
        """See `Resolver.withdrawn`."""
        lists = [await self._registry.list(name) for name in await self.services()]
        return {each.service: each.withdrawn for each in lists}

    async def aclose(self) -> None:
        """Close the registry if it is owned."""
        if self._owned:
            await self._registry.aclose()


def proxy_url(text: str) -> URL:
    """A proxy's URL from text; `HOST:PORT` alone is `http://HOST:PORT`.

    Raises:
        ConfigurationError: it is neither, or it has a path.
    """
    with contextlib.suppress(ValueError):
        url = URL(text)
        if "://" not in text and ":" in text:
            url = URL(f"http://{text}")
        bare = url.path == "/" and not url.query_string and not url.fragment
        if url.scheme in {"http", "https"} and url.host and url.port is not None and bare:
            return url
    raise ConfigurationError(
        f"{text!r} is not a valid proxy URL: use http://HOST:PORT, such as http://127.0.0.1:12480"
    )


class ProxyResolver:
    """Asks one proxy, and the next one if that fails. Make it inside a running event loop."""

    def __init__(self, proxies: Sequence[URL], *, connect_timeout_s: float) -> None:
        self._proxies = tuple(proxies)
        self._watches: dict[str, Watch[Snapshot]] = {}
        self._connect_timeout_s = connect_timeout_s
        # Each watch holds a connection, so their number is not limited.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
        )

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every call returns the same one."""
        watch = self._watches.get(service)
        if watch is None:
            poll = _ProxyPoll(self, check_service(service))
            watch = self._watches[service] = Watch(poll, name=f"{service} by proxy").start()
        return watch

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        return tuple(each.name for each in await self._entries())

    async def withdrawn(self) -> dict[str, tuple[str, ...]]:
        """See `Resolver.withdrawn`; of a proxy of release 0.1.0 none."""
        return {each.name: each.withdrawn for each in await self._entries()}

    async def _entries(self) -> tuple[ServiceEntry, ...]:
        failures = []
        for proxy in self._proxies:
            try:
                status, _, body = await self.get(proxy, "/v1/services", {}, timeout_s=_SLACK_S)
                if status != 200:
                    raise error_from_json(body, status=status)
                answer = _decode(body, ServicesAnswer, proxy)
            except FingerpostError as error:
                failures.append(error)
            else:
                return answer.services
        raise _none_answered(failures)

    async def aclose(self) -> None:
        """End the watches and close the connections."""
        for watch in self._watches.values():
            await watch.aclose()
        await self._session.close()

    @property
    def proxies(self) -> tuple[URL, ...]:
        """The proxies' URLs, in the order in which they are asked."""
        return self._proxies

    async def get(
        self, proxy: URL, path: str, query: dict[str, str], *, timeout_s: float
    ) -> tuple[int, str | None, bytes]:
        """Status, index header and body of one answer. Raises `Unreachable`."""
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._connect_timeout_s)
        url = proxy.with_path(path).with_query(query)
        try:
            async with self._session.get(url, timeout=limits, allow_redirects=False) as response:
                return response.status, response.headers.get(INDEX_HEADER), await response.read()
        except TimeoutError as error:
            raise Unreachable(f"{proxy}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{proxy}: {error or type(error).__name__}") from error


class _ProxyPoll:
    """The poll of one service's watch. It remembers which proxy answered last.

    After a failure it asks the next proxy with index 0: an index is valid at one proxy only.
    """

    def __init__(self, resolver: ProxyResolver, service: str) -> None:
        self._resolver = resolver
        self._service = service
        self._at = 0

    async def __call__(self, index: int, wait_s: float) -> tuple[Snapshot, int]:
        """See `fingerpost.registry.watching.watch.Poll`."""
        proxies = self._resolver.proxies
        failures = []
        for at in range(self._at, self._at + len(proxies)):
            # Set before it has answered, so that a cancelled poll goes on with the next one too.
            self._at = (at + 1) % len(proxies)
            try:
                answer = await self._ask(proxies[at % len(proxies)], index, wait_s)
            except FingerpostError as error:
                failures.append(error)
                index = 0
            else:
                self._at = at % len(proxies)
                return answer
        raise _none_answered(failures)

    async def _ask(self, proxy: URL, index: int, wait_s: float) -> tuple[Snapshot, int]:
        held = {"index": str(index), "wait": f"{wait_s:g}s"} if index else {}
        # Consul's rule: a held answer may come wait/16 later, so that clients do not synchronize.
        timeout_s = _SLACK_S + (wait_s * 17 / 16 if index else 0.0)
        path = f"/v1/resolve/{self._service}"
        status, header, body = await self._resolver.get(proxy, path, held, timeout_s=timeout_s)
        try:
            next_index = max(1, int(header or ""))
        except ValueError:
            raise BadAnswer(
                f"{proxy}: HTTP {status} with {INDEX_HEADER} {header!r}; is it a Fingerpost proxy?"
            ) from None
        if status == 200:
            snapshot = _decode(body, ResolveAnswer, proxy).snapshot(time.monotonic())
            return snapshot, next_index
        error = error_from_json(body, status=status)
        if not isinstance(error, NoWorker | UnknownService):
            raise error
        known = isinstance(error, NoWorker)
        empty = Snapshot(
            service=self._service,
            instances=(),
            known=known,
            index=next_index,
            taken_at=time.monotonic(),
        )
        return empty, next_index


def _decode(body: bytes, answer: type[A], proxy: URL) -> A:
    try:
        return msgspec.json.decode(body, type=answer)
    except msgspec.MsgspecError as error:
        raise BadAnswer(
            f"{proxy}: {body[:200]!r} is not a valid {answer.__name__}: {error}"
        ) from error


def _none_answered(failures: Sequence[FingerpostError]) -> RegistryUnreachable:
    reasons = "; ".join(str(each) for each in failures)
    return RegistryUnreachable(f"no proxy answered; start one or use another one: {reasons}")
