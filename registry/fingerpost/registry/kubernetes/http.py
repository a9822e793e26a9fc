"""Calls to Kubernetes' API server, with token, TLS and typed errors; and its watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
import msgspec
import yarl

from fingerpost.basics.printable import one_line
from fingerpost.errors import (
    NotARegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)
from fingerpost.registry.peers.answer import DECODE_ERRORS
from fingerpost.registry.peers.pools import ConnectionPools, Pool
from fingerpost.registry.peers.session import connection_problem

if TYPE_CHECKING:
    from fingerpost.registry.kubernetes.access import Access
    from fingerpost.registry.kubernetes.resource import Resource

__all__ = ["AlreadyExists", "Expired", "KubernetesHttp", "NotFound"]

# A page of 500 Leases of 15 KB each has 7.5 MB.
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
# etcd keeps no object over 1.5 MB.
_MAX_LINE_BYTES: Final = 4 * 1024 * 1024

_METHODS: Final[dict[str, str]] = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}
Verb = Literal["get", "list", "watch", "create", "patch", "delete"]


class NotFound(RegistryError):
    """The object, its namespace or its kind does not exist."""


class AlreadyExists(RegistryError):
    """An object of that name exists."""


class Expired(RegistryError):
    """A resource version is too old, or is not known: list again (410 Gone)."""


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0


_decode_status: Final = msgspec.json.Decoder(_Status).decode


class KubernetesHttp:
    """Connections to one API server, made on first use in the running loop.

    All failures are `RegistryError`s. The token and the certificates are read again when their
    files change (see `Token` and `Tls`), so that a token that Kubernetes rotates, which it does
    every hour, needs no restart.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._pools = ConnectionPools(
            _MAX_BODY_BYTES, tls=access.tls is not None, headers={"Accept": "application/json"}
        )

    @property
    def server(self) -> str:
        """The base URL of the API server."""
        return self._access.server

    async def call(
        self,
        verb: Verb,
        resource: Resource,
        name: str = "",
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> bytes:
        """One request, and its answer. It has no deadline of its own.

        `name` must be a name that was checked, or made here.

        Raises:
            RegistryUnreachable: no connection, one that broke, or a server in trouble.
            RegistryDenied: the token is not accepted (401), or may not do this (403): the message
                names verb, resource and namespace.
            NotFound: 404. AlreadyExists: 409. Expired: 410.
            NotARegistry: another server answers.
            RegistryError: any other status but 2xx.
        """
        headers = {}
        if verb == "patch":
            headers["Content-Type"] = "application/merge-patch+json"
        elif body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._request(verb, resource, name, params, headers, data) as response:
                content = await _read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        self._check(response, content, verb, resource)
        return content

    async def watch(self, resource: Resource, params: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """The lines of a watch, and first an empty one once the server has accepted it.

        It ends when the server ends it. Close it (`aclosing`) to end it before.

        Raises:
            RegistryError: as `call`; `RegistryUnreachable` where the connection breaks.
        """
        params = {"watch": "true", "allowWatchBookmarks": "true", **params}
        try:
            async with self._request("watch", resource, "", params, {}, None) as response:
                if response.status != 200:
                    self._check(response, await _read(response), "watch", resource)
                yield b""
                buffer = bytearray()
                async for piece in response.content.iter_any():
                    buffer += piece
                    if b"\n" in piece:
                        *lines, rest = buffer.split(b"\n")
                        for line in lines:
                            if line.strip():
                                yield bytes(line)
                        buffer = rest
                    if len(buffer) > _MAX_LINE_BYTES:
                        raise RegistryError(
                            f"{self.server}: an event of over {_MAX_LINE_BYTES} bytes"
                        )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    async def aclose(self) -> None:
        """Close all connections. A later call opens new ones."""
        await self._pools.aclose()

    def _request(
        self,
        verb: Verb,
        resource: Resource,
        name: str,
        params: Mapping[str, str] | None,
        headers: dict[str, str],
        data: bytes | None,
    ) -> Any:
        token = self._access.token.current()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        tls = self._access.tls
        pool: Pool = "watches" if verb == "watch" else "calls"
        return self._pools.session(pool).request(
            _METHODS[verb],
            yarl.URL(f"{self.server}{resource.path}{'/' + name if name else ''}", encoded=True),
            params=params,
            data=data,
            headers=headers,
            allow_redirects=False,
            # Connections are kept by context: those of an older one are not used any more.
            ssl=True if tls is None else tls.current(),
            server_hostname=self._access.server_name,
        )

    def _unreachable(self, error: Exception) -> RegistryError:
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return RegistryUnreachable(f"the API server {self.server}: timed out")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return RegistryUnreachable(
                f"the certificate of the API server {self.server} is not trusted: "
                f"{error.certificate_error}; name its authority's file as ca_file, and the host as "
                "the certificate has it"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return NotARegistry(
                f"{self.server} answers what is not HTTP: {one_line(error.message, 200)!r}"
            )
        return RegistryUnreachable(
            f"the API server {self.server} cannot be reached: {connection_problem(error)}"
        )

    def _check(
        self, response: aiohttp.ClientResponse, body: bytes, verb: str, resource: Resource
    ) -> None:
        """Raise the error for a status other than 2xx."""
        if response.status // 100 == 2:
            return
        try:
            status = _decode_status(body)
        except DECODE_ERRORS:
            status = _Status()
        what = f"{verb} {resource.name} in namespace {resource.namespace!r} at {self.server}"
        raise (
            status_error(
                response.status, status.reason, one_line(status.message, 300), what, resource, verb
            )
            if status.kind == "Status"
            else NotARegistry(
                f"{what}: HTTP {response.status}, and no Status of Kubernetes: "
                f"{one_line(body[:200].decode('utf-8', 'replace'), 100)!r}; is it an API server?"
            )
        )


def status_error(
    code: int, reason: str, message: str, what: str, resource: Resource, verb: str
) -> RegistryError:
    """The error for a `Status` of Kubernetes."""
    text = f"{what}: HTTP {code}: {message or reason}"
    if code == 401:
        return RegistryDenied(
            f"{text}: the token is not accepted: it has ended, or is of another cluster"
        )
    if code == 403:
        group = f" of the API group {resource.group!r}" if resource.group else ""
        return RegistryDenied(
            f"{text}. Missing right: the verb {verb!r} on {resource.name!r}{group} in the "
            f"namespace {resource.namespace!r}; deploy/kubernetes/rbac has the Roles"
        )
    if code == 404:
        return NotFound(text)
    if code == 409 and reason in ("AlreadyExists", ""):
        return AlreadyExists(text)
    if code == 410 or reason in ("Expired", "Gone"):
        return Expired(text)
    if code in (429, 500, 502, 503, 504):
        return RegistryUnreachable(text)
    return RegistryError(text)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise RegistryError(f"{response.url}: an answer of over {_MAX_BODY_BYTES} bytes")
    return bytes(body)
