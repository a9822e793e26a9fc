"""Step 1: look up where the workers are, through proxies or straight in a registry."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from yarl import URL

from fingerpost.client.proxy_answers import ProxyAnswers, Unlisted
from fingerpost.client.proxy_poll import SLACK_S, ProxyPoll, none_answered, not_a_proxy
from fingerpost.client.start_requests import StartRequests
from fingerpost.errors import (
    BadAnswer,
    ConfigurationError,
    FingerpostError,
    Unreachable,
    error_from_json,
)
from fingerpost.registry import Watch
from fingerpost.registry.address_policy import AddressPolicy, RejectedEntries
from fingerpost.registry.names import check_service
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.registry.watching.shared import SharedWatches
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fingerpost.client.credential import Credential
    from fingerpost.registry import Registry, Snapshot
    from fingerpost.registry.watching.signatures import EntrySignatures

__all__ = ["ProxyResolver", "RegistryResolver", "Resolver", "proxy_url"]

_KEEP_ALIVE_S: Final = 15.0
# An instance has some 700 bytes, so this is 20,000 of one service.
_MAX_BYTES: Final = 16 * 1024 * 1024
# A stop for programs that never release a watch; each holds a connection to a proxy.
_MAX_WATCHES: Final = 10_000
_LISTS_AT_ONCE: Final = 8


class Resolver(Protocol):
    """The source of a client's snapshots."""

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every call returns the same one."""
        ...

    async def release(self, service: str) -> None:
        """End one use of a watch that `watch` returned; the last one closes it."""
        ...

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        ...

    async def overview(self, wait_s: float) -> list[tuple[Snapshot, Unlisted]]:
        """All services as they are now, each with its workers that are off the list.

        Raises:
            RegistryError: one of them cannot be read, by a proxy not within `wait_s`.
        """
        ...

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The entries that were left out, because they are malformed or not allowed."""
        ...

    @property
    def gives_leases(self) -> bool:
        """Whether leases come from here at all."""
        ...

    def lease(self, service: str) -> str:
        """The newest signed lease for a watched service; empty where there is none."""
        ...

    async def renew_lease(self, service: str) -> None:
        """Look a service up once more for its lease. Raises `FingerpostError`."""
        ...

    @property
    def problems(self) -> tuple[str, ...]:
        """What the proxy that answered last said is wrong with it, to callers with a role."""
        ...

    def request_start(self, service: str) -> float:
        """Say that images wait for the first worker of a service, and how long that may take.

        Returns the seconds that a proxy holds lookups for it; 0 where none does.
        """
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

    async def release(self, service: str) -> None:
        """See `Resolver.release`."""
        await self._registry.release(service)

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        return (await self._registry.catalog()).services

    async def overview(self, wait_s: float) -> list[tuple[Snapshot, Unlisted]]:
        """See `Resolver.overview`; without watches, of which a registry allows only so many."""
        together = asyncio.Semaphore(_LISTS_AT_ONCE)

        async def read(service: str) -> tuple[Snapshot, Unlisted]:
            async with together:
                found = await self._registry.list(service)
            unlisted = Unlisted(
                withdrawn=found.withdrawn,
                failing=dict(found.failing),
                rejected=dict(found.rejected),
            )
            return found, unlisted

        return await asyncio.gather(*map(read, await self.services()))

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The entries that the registry left out."""
        # A registry of the caller's own, which was written for an earlier release, counts none.
        return getattr(self._registry, "rejected_entries", None) or RejectedEntries()

    gives_leases = False

    def lease(self, service: str) -> str:
        """A registry gives no leases."""
        return ""

    async def renew_lease(self, service: str) -> None:
        """A registry gives no leases."""

    def request_start(self, service: str) -> float:
        """A registry starts no worker."""
        return 0.0

    @property
    def problems(self) -> tuple[str, ...]:
        """None: a registry does not say so."""
        return ()

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
    """Asks one proxy, and the next one if that fails. Make it inside a running event loop.

    A proxy's answers are checked as a registry's are: an instance that is malformed, or whose
    address the policy rejects, is left out, counted and logged, and does not affect the others.

    Args:
        proxies: URLs, in the order in which they are asked.
        connect_timeout_s: how many seconds a connection to one of them may take.
        address_policy: which addresses of workers are used.
        tls: for `https` URLs; by default the authorities of the system.
        credential: sent to the proxies.
        signatures: which signatures of workers are believed; None asks for none.
    """

    def __init__(
        self,
        proxies: Sequence[URL],
        *,
        connect_timeout_s: float,
        address_policy: AddressPolicy | None = None,
        tls: ClientTls | None = None,
        credential: Credential | None = None,
        signatures: EntrySignatures | None = None,
    ) -> None:
        self._tls = tls or ClientTls()
        self._credential = credential
        self._proxies = tuple(proxies)
        self._watches = SharedWatches(self._new_watch, limit=_MAX_WATCHES)
        self._overviewed: dict[str, Watch[Snapshot]] = {}
        self._connect_timeout_s = connect_timeout_s
        self._answers = ProxyAnswers(address_policy or AddressPolicy(), signatures)
        self.starts = StartRequests(self._held)
        # Each watch holds a connection, so their number is not limited.
        self._session = PeerSession(max_bytes=_MAX_BYTES, keep_alive_s=_KEEP_ALIVE_S, workers=False)

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The instances left out of the proxies' answers."""
        return self._answers.rejected_entries

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch of one service; every call returns the same one."""
        return self._watches.watch(check_service(service))

    async def release(self, service: str) -> None:
        """See `Resolver.release`."""
        await self._watches.release(service)

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        return Watch(ProxyPoll(self, self._answers, service), name=f"{service} by proxy")

    async def services(self) -> tuple[str, ...]:
        """The names of all services. Raises `RegistryError`."""
        return tuple(await self._unlisted())

    async def overview(self, wait_s: float) -> list[tuple[Snapshot, Unlisted]]:
        """See `Resolver.overview`. Between two calls the services are watched."""
        unlisted = await self._unlisted()
        for name in self._overviewed.keys() - unlisted.keys():
            del self._overviewed[name]
            await self.release(name)
        for name in unlisted.keys() - self._overviewed.keys():
            self._overviewed[name] = self.watch(name)
        return [
            (await self._overviewed[name].ready(wait_s), workers)
            for name, workers in unlisted.items()
        ]

    async def _unlisted(self) -> dict[str, Unlisted]:
        """The services; a proxy of release 0.1.0 says nothing of workers that are off the list."""
        failures: list[tuple[URL, FingerpostError]] = []
        for proxy in self._proxies:
            try:
                status, _, body = await self.get(proxy, "/v1/services", {}, timeout_s=SLACK_S)
                if status != 200:
                    error = error_from_json(body, status=status, peer=str(proxy))
                    if type(error) is BadAnswer:
                        error = not_a_proxy(proxy, f"HTTP {status}", body)
                    raise error
                return self._answers.services(body, str(proxy))
            except FingerpostError as failure:
                failures.append((proxy, failure))
        raise none_answered(failures)

    gives_leases = True

    def lease(self, service: str) -> str:
        """See `Resolver.lease`."""
        return self._answers.leases.get(service, "")

    async def renew_lease(self, service: str) -> None:
        """See `Resolver.renew_lease`."""
        await ProxyPoll(self, self._answers, check_service(service))(0, 0.0)

    @property
    def problems(self) -> tuple[str, ...]:
        """See `Resolver.problems`."""
        return self._answers.problems

    async def aclose(self) -> None:
        """End the watches and close the connections."""
        await self.starts.aclose()
        await self._watches.aclose()
        await self._session.aclose()

    def request_start(self, service: str) -> float:
        """See `Resolver.request_start`."""
        return self.starts.request(service)

    async def _held(self, service: str, hold_s: float) -> None:
        """A lookup that is held for `hold_s` seconds, or until there is a worker."""
        for proxy in self._proxies:
            query = {"wait": f"{hold_s:g}s"}
            with contextlib.suppress(FingerpostError):
                path = f"/v1/resolve/{service}"
                await self.get(proxy, path, query, timeout_s=hold_s + SLACK_S)
                return

    @property
    def proxies(self) -> tuple[URL, ...]:
        """The proxies' URLs, in the order in which they are asked."""
        return self._proxies

    async def get(
        self, proxy: URL, path: str, query: dict[str, str], *, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer.

        Raises:
            Unreachable, BadAnswer, TlsFailed: see `peer_error`.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s)
        url = proxy.with_path(path).with_query(query)
        tls = self._tls.for_host() if proxy.scheme == "https" else None
        credential = self._credential
        headers = None if credential is None else {"Authorization": credential.header()}
        asked = self._session.request("GET", url, headers=headers, timeout=limits, tls=tls)
        try:
            async with asyncio.timeout(timeout_s), asked as response:
                body = await self._session.read(response, str(proxy))
                return response.status, response.headers, body
        except TimeoutError as error:
            raise Unreachable(f"{proxy}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise peer_error(error, str(proxy)) from error
