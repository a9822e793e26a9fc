"""The attackers of the secure demo, each of which is to be refused.

They are on this machine, and reach every port: nothing but the cluster itself holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from fingerpost.errors import FingerpostError
from fingerpost.registry.peers.session import connection_problem
from fingerpost.security.caller import ANYBODY
from fingerpost.security.callers.api_keys import make_key
from fingerpost.security.keys import SigningKey
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.security.tls import ClientTls
from fingerpost.security.tls.problems import tls_problem

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable
    from pathlib import Path

    from fingerpost.deploy.demo.secure.cluster import SecureCluster
    from fingerpost.security.tls import TlsConfig

__all__ = ["Attackers", "Attempt"]

_IMPOSTOR: Final = "impostor"
_NOTICED_S: Final = 20.0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What an attacker did, and what came of it.

    Attributes:
        attacker: who it is, and what it has.
        tried: what it did.
        answer: what it got.
        refused: whether that is a refusal.
    """

    attacker: str
    tried: str
    answer: str
    refused: bool


class Attackers:
    """Try to get in, while inside `async with`; a registered impostor stays until its end.

    Args:
        cluster: the running cluster.
        service: its model.
        image: an image to send.
    """

    def __init__(self, cluster: SecureCluster, service: str, image: Path) -> None:
        self._cluster = cluster
        self._files = cluster.files
        self._service = service
        self._image = image.read_bytes()
        self._session: ClientSession | None = None
        self._stack = contextlib.AsyncExitStack()
        self._worker = ""
        self.impostor_connections = 0
        """How often somebody has connected to the registered impostor."""

    async def __aenter__(self) -> Self:
        self._session = await self._stack.enter_async_context(
            ClientSession(
                connector=TCPConnector(force_close=True), timeout=ClientTimeout(total=10.0)
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def try_all(self) -> list[Attempt]:
        """All attempts, one after the other."""
        files, key = self._files, self._files.camera_key
        resolved = await self._resolve(files.camera, key)
        answer = json.loads(resolved[1])
        first = answer["instances"][0]
        self._worker = f"{first['host']}:{first['ports']['http']}"
        stolen = answer["lease"]
        stranger, visitor = "a stranger on the network", "the visitor: another tenant"
        thief = "somebody with a certificate of the cluster"
        attempts = [
            (stranger, "sends an image without a certificate", self._send(_only_ca(files.camera))),
            (stranger, "shows a certificate of its own authority", self._send(files.stranger)),
            (stranger, "speaks plain HTTP", self._send(None)),
            (thief, "sends an image without a lease", self._send(files.visitor)),
            (thief, "signs a lease itself", self._send(files.visitor, _forged(self._service))),
            (thief, "sends a lease with `alg: none`", self._send(files.visitor, _unsigned(stolen))),
            (thief, "sends the camera's lease, stolen", self._send(files.visitor, stolen)),
            (thief, "asks the proxy without an API key", self._ask(files.visitor, "")),
            (thief, "guesses an API key", self._ask(files.visitor, make_key())),
            (visitor, f"asks for {self._service}", self._ask(files.visitor, files.visitor_key)),
            (visitor, "orders a worker to roll back", self._order(files.visitor_key)),
        ]
        done = [await self._tried(who, what, work) for who, what, work in attempts]
        return [*done, *await self._register()]

    async def _tried(self, attacker: str, tried: str, work: Awaitable[tuple[int, str]]) -> Attempt:
        status, text = await work
        return Attempt(
            attacker=attacker, tried=tried, answer=_answer(status, text), refused=status >= 400
        )

    async def _register(self) -> list[Attempt]:
        """Register an impostor that gets every image, if it is believed."""
        tokens = self._cluster.tokens
        found = []
        if tokens:
            status, text = await self._put_entry(tokens["reader"].read_text())
            found.append(
                Attempt(
                    attacker="somebody with the proxy's registry token",
                    tried="registers a worker",
                    answer=_answer(status, text),
                    refused=status >= 400,
                )
            )
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._stack.push_async_callback(_close, server)
        self._stack.push_async_callback(self._deregister)
        port = int(server.sockets[0].getsockname()[1])
        token = tokens["worker"].read_text() if tokens else ""
        status, text = await self._put_entry(token, port)
        why = await self._left_out() if status == 200 else _answer(status, text)
        found.append(
            Attempt(
                attacker="somebody with a worker's registry token"
                if tokens
                else "somebody who reaches the registry",
                tried="registers a copy of a worker's entry, for itself",
                answer=f"registered, and left out: {why}" if why else "listed as a worker",
                refused=bool(why),
            )
        )
        return found

    async def _put_entry(self, token: str, port: int = 9) -> tuple[int, str]:
        """Register a copy of an honest worker's entry, with its signature, at another port."""
        url = f"{self._cluster.registry_url}/v1"
        tls = ClientTls(self._files.worker).for_host()
        reader = self._cluster.tokens["reader"].read_text() if token else ""
        _, listed = await self._request(
            "GET", f"{url}/health/service/{self._service}", tls, headers=_consul(reader)
        )
        honest = json.loads(listed)[0]["Service"]
        entry = {
            "ID": _IMPOSTOR,
            "Name": self._service,
            "Address": "127.0.0.1",
            "Port": port,
            "Tags": honest["Tags"],
            "Meta": honest["Meta"],
            "Weights": {"Passing": 65535, "Warning": 1},
        }
        return await self._request(
            "PUT",
            f"{url}/agent/service/register",
            tls,
            headers=_consul(token),
            data=json.dumps(entry).encode(),
        )

    async def _deregister(self) -> None:
        tokens = self._cluster.tokens
        await self._request(
            "PUT",
            f"{self._cluster.registry_url}/v1/agent/service/deregister/{_IMPOSTOR}",
            ClientTls(self._files.worker).for_host(),
            headers=_consul(tokens["worker"].read_text() if tokens else ""),
        )

    async def _left_out(self) -> str:
        """Why the proxy does not use the impostor; empty if it tells of it as of a worker."""
        end = time.monotonic() + _NOTICED_S
        tls = ClientTls(self._files.camera).for_host()
        while time.monotonic() < end:
            _, text = await self._request(
                "GET",
                f"{self._cluster.local.proxy_url}/v1/services",
                tls,
                headers=_bearer(self._files.camera_key),
            )
            for service in json.loads(text)["services"]:
                if _IMPOSTOR in service.get("rejected", {}):
                    return str(service["rejected"][_IMPOSTOR])
            _, text = await self._resolve(self._files.camera, self._files.camera_key)
            if any(each["id"] == _IMPOSTOR for each in json.loads(text)["instances"]):
                return ""
            await asyncio.sleep(0.1)
        return "nobody has seen it"

    async def _connected(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.impostor_connections += 1
        writer.close()

    async def _send(self, tls: TlsConfig | None, lease: str = "") -> tuple[int, str]:
        """An image to a worker; without `tls` by plain HTTP."""
        context = None if tls is None else self._for_worker(tls)
        url = f"{'http' if tls is None else 'https'}://{self._worker}/v1/classify/{self._service}"
        return await self._request("POST", url, context, headers=_bearer(lease), data=self._image)

    async def _ask(self, tls: TlsConfig, key: str) -> tuple[int, str]:
        """Where the workers are."""
        return await self._resolve(tls, key)

    async def _order(self, key: str) -> tuple[int, str]:
        url = f"https://{self._worker}/v1/admin/models/{self._service}/rollback"
        context = self._for_worker(self._files.visitor)
        return await self._request("POST", url, context, headers=_bearer(key))

    async def _resolve(self, tls: TlsConfig, key: str) -> tuple[int, str]:
        url = f"{self._cluster.local.proxy_url}/v1/resolve/{self._service}"
        return await self._request("GET", url, ClientTls(tls).for_host(), headers=_bearer(key))

    def _for_worker(self, tls: TlsConfig) -> ssl.SSLContext | None:
        return ClientTls(tls).for_worker(self._service, speaks_tls=True, peer=self._worker)

    async def _request(
        self,
        method: str,
        url: str,
        tls: ssl.SSLContext | None,
        *,
        headers: dict[str, str],
        data: bytes | None = None,
    ) -> tuple[int, str]:
        """The status and the text; 499 and the reason where the connection was refused."""
        if self._session is None:
            raise FingerpostError("attackers act inside `async with`")
        try:
            async with self._session.request(
                method, url, headers=headers, data=data, ssl=tls or True, allow_redirects=False
            ) as response:
                return response.status, await response.text()
        except (ClientError, OSError) as error:
            # Without the remedy, which is not meant for attackers.
            return 499, (tls_problem(error) or connection_problem(error)).partition(": ")[0]


def _only_ca(tls: TlsConfig) -> TlsConfig:
    """Whom a client believes, without what it shows."""
    return type(tls)(ca=tls.ca, trust_domain=tls.trust_domain)


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"} if credential else {}


def _consul(token: str) -> dict[str, str]:
    return {"X-Consul-Token": token.strip()} if token else {}


def _forged(service: str) -> str:
    """A lease that is right but for its key."""
    key = SigningKey.generate()
    return LeaseSigner(lambda: key, LeaseConfig(), time.time).sign(ANYBODY, service).token


def _unsigned(lease: str) -> str:
    """A lease's claims without its signature."""
    head = urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{head}.{lease.split('.')[1]}."


def _answer(status: int, text: str) -> str:
    """`401 lease_required`, or what is wrong with the connection."""
    if status == 499:
        return f"no connection: {text}"
    try:
        error: Any = json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        error = " ".join(text.split())[:80]
    return f"{status} {error}"


async def _close(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
