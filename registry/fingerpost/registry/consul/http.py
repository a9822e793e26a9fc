"""Calls to Consul's HTTP API, with token, TLS and typed errors."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import aiohttp
import msgspec
import yarl

from fingerpost.basics.printable import one_line
from fingerpost.errors import (
    BadAnswer,
    NotARegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
    error_from_json,
)
from fingerpost.registry.consul.schema.url import parse_base_url
from fingerpost.registry.instance import format_address
from fingerpost.registry.peers.pools import ConnectionPools, Pool
from fingerpost.registry.peers.session import connection_problem

if TYPE_CHECKING:
    from fingerpost.registry.consul.tls import Tls
    from fingerpost.registry.credentials import Token

__all__ = ["Answer", "ConsulHttp", "Pool"]

# What a registry has for every caller; one answers there with another status, or fails.
_ALWAYS_THERE: Final = ("/v1/catalog/", "/v1/health/service/")
_REGISTRY_URL: Final = (
    "Give the registry's own URL (programs ask a proxy with Client(URL), the commands for images "
    "with --proxy URL)"
)
# An entry is some 3 KB, so this is 20,000 instances of one service.
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Consul's answer: status 200, or another one where the caller accepts that."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def index(self) -> int:
        """`X-Consul-Index`, at least 1. Raises `RegistryError` where it is not a number."""
        value = self.headers.get("X-Consul-Index", "")
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise NotARegistry(
                f"an answer of {self.server} has X-Consul-Index {value!r}: it is not Consul's. "
                f"{_REGISTRY_URL}"
            )
        return max(1, int(value))

    @property
    def server(self) -> str:
        """What answered, as it names itself."""
        return f"server {self.headers.get('Server', '')[:100]!r}"

    @property
    def knows_leader(self) -> bool:
        """False while the servers have no leader, and their data may be as old as the outage."""
        return self.headers.get("X-Consul-KnownLeader") != "false"


class ConsulHttp:
    """Two connection pools to one agent, made on first use in the running loop.

    Redirects, cookies, proxies and environment variables are not used. All failures are
    `RegistryError`s.

    Args:
        base_url: `http(s)://HOST:PORT`.
        token: its current value is sent with every call.
        namespace: sent with every call, if not None (Consul Enterprise).
        tls: its current context is used for each call over `https`; None uses the system's
            authorities. After the certificates changed, older connections are not used again.

    Raises:
        ConfigurationError: the URL is not valid.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Token,
        namespace: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.base_url = parse_base_url(base_url)
        self._token = token
        self._namespace = namespace
        self._params = {} if namespace is None else {"ns": namespace}
        self._tls = tls
        self._pools = ConnectionPools(_MAX_BODY_BYTES, tls=tls is not None)

    def at(self, host: str) -> ConsulHttp:
        """The same settings for the agent at another host; the caller closes the connections."""
        parts = urllib.parse.urlsplit(self.base_url)
        return ConsulHttp(
            f"{parts.scheme}://{format_address(host, parts.port or 0)}",
            token=self._token,
            namespace=self._namespace,
            tls=self._tls,
        )

    async def call(
        self,
        method: Literal["GET", "PUT", "POST"],
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: str | bytes | None = None,
        pool: Pool = "calls",
        not_found_ok: bool = False,
        any_status: bool = False,
    ) -> Answer:
        """One request. It has no deadline of its own: callers put theirs around it.

        `path` must contain only names that were checked (see `names`). With `any_status` the
        caller handles the status itself.

        Raises:
            RegistryUnreachable: no connection, or one that broke.
            RegistryDenied: status 401 or 403.
            NotARegistry: another server answers, or none that speaks HTTP.
            RegistryError: any other status but 200 (and 404 with `not_found_ok`).
        """
        url = yarl.URL(self.base_url + path)
        token = self._token.current()
        headers = {} if token is None else {"X-Consul-Token": token}
        params = self._params | dict(params or {})
        try:
            async with self._pools.session(pool).request(
                method,
                url,
                params=params,
                data=data,
                headers=headers,
                allow_redirects=False,
                # Connections are kept by context: those of an older one are not used any more.
                ssl=self._tls.current() if self._tls is not None else True,
            ) as response:
                body = await _read(response)
        except TimeoutError as error:
            raise RegistryUnreachable(f"{method} {url}: timed out") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise RegistryUnreachable(
                f"the certificate of {self.base_url} is not trusted: "
                f"{error.certificate_error}; name its authority's file as ca_file, and the host "
                "as the certificate has it"
            ) from error
        except aiohttp.ClientResponseError as error:
            raise NotARegistry(
                f"{self.base_url} answers what is not HTTP: {one_line(error.message, 200)!r}. "
                f"{_REGISTRY_URL}"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RegistryUnreachable(
                f"the registry at {self.base_url} cannot be reached: "
                f"{connection_problem(error)}; is it running there?"
            ) from error
        answer = Answer(status=response.status, headers=response.headers, body=body)
        if not any_status and not (answer.status == 404 and not_found_ok):
            where = f" in datacenter {params['dc']}" if "dc" in params else ""
            if path.startswith(_ALWAYS_THERE):
                _check_registry(answer, f"{method} {self.base_url}{path}")
            self.check(answer, f"{method} {self.base_url}{path}{where}")
        return answer

    @staticmethod
    def check(answer: Answer, what: str) -> None:
        """Raise the error for a status other than 200: see `call`."""
        status = answer.status
        if status == 200:
            return
        text = answer.body[:300].decode("utf-8", "replace").strip()
        ours = error_from_json(answer.body, status=status)
        if isinstance(ours, BadAnswer):
            pass
        elif status in (401, 403):  # the embedded registry's
            raise RegistryDenied(f"{what}: HTTP {status}: {ours.message}")
        else:
            raise NotARegistry(
                f"{what}: a proxy or worker of Fingerpost answered, not a registry. {_REGISTRY_URL}"
            )
        if status in (401, 403):
            raise RegistryDenied(f"{what}: HTTP {status}: {text}; check the token's policy")
        raise RegistryError(f"{what}: HTTP {status}: {text}")

    async def aclose(self) -> None:
        """Close all connections. A later call opens new ones."""
        await self._pools.aclose()


def _check_registry(answer: Answer, what: str) -> None:
    """Raise `NotARegistry` for what no registry answers, at a path that each has."""
    status = answer.status
    text = one_line(answer.body[:200].decode("utf-8", "replace").strip(), 100)
    if status == 400 and b"HTTPS" in answer.body[:300]:
        raise NotARegistry(f"{what}: HTTP 400: {text}: it speaks TLS; use consul+https://")
    if status // 100 != 2 and not isinstance(
        error_from_json(answer.body, status=status), BadAnswer
    ):
        return  # `check` says whose it is
    if status // 100 == 3 or status in (404, 405, 501):
        raise NotARegistry(
            f"{what}: HTTP {status} of {answer.server}: {text!r}: this is not a registry. "
            f"{_REGISTRY_URL}"
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _MAX_BODY_BYTES:
            raise RegistryError(f"{response.url}: an answer of over {_MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)
