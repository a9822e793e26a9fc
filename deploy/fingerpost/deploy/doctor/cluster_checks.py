"""Whether a machine reaches the registry and the proxies, and they it; and whose name it has."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fingerpost.client.reach import MEASURE_S, REACH_PATH, ReachAnswer, SpeedMeter
from fingerpost.client.resolver import proxy_url
from fingerpost.deploy.doctor.asked_back import AskedBack
from fingerpost.deploy.doctor.finding import KNOWN_CREDENTIAL, Finding, error, note, ok, warning
from fingerpost.deploy.options.registry import with_registry_options
from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    Forbidden,
    MethodNotAllowed,
    PeerError,
    RegistryDenied,
    Unauthenticated,
    UnknownPath,
    error_from_json,
)
from fingerpost.registry import open_registry
from fingerpost.registry.consul.http import ConsulHttp
from fingerpost.registry.consul.node_name import name_taken
from fingerpost.registry.consul.registry import ConsulRegistry
from fingerpost.registry.consul.tls import Tls
from fingerpost.registry.credentials import Token
from fingerpost.registry.own_address import is_own_address
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from yarl import URL

    from fingerpost.client.credential import Credential
    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["ClusterChecks"]

_TIMEOUT_S: Final = 5.0
# Both ways one after the other, and what is around them.
_MEASURE_S: Final = 2 * MEASURE_S + 2.0
_ROUNDS: Final = 5
_SLOW_S: Final = 0.1
_MAX_BYTES: Final = 16_384
# A link of 1 Gbit/s carries some 940, one that has fallen back to 100 Mbit/s 94.
_LEAST_MBIT: Final = 200.0
_IMAGE_MBIT: Final = 0.64 * 8
# What TLS and logs notice, and what leases allow (`LeaseRules.skew_s`).
_OFFSET_S: Final = 1.0
_MOST_OFFSET_S: Final = 30.0
_CORRECT: Final = "correct that value, or leave its option out"


class ClusterChecks:
    """Asks a registry and proxies.

    Args:
        registry: the registry's URL.
        registry_config: access to it.
        proxies: URLs of proxies.
        tls: certificates for the proxies.
        credential: what the proxies are shown, if they ask.
        port: the port of the worker that is to run here; 0 takes a free one.
        name: the machine's name.
        grpc_ports: further ports that are to be served here, by `grpc` and `xds`, which say so in
            the findings. One that is taken is left out: see `check_grpc`.
    """

    def __init__(
        self,
        *,
        registry: str,
        registry_config: RegistryConfig,
        proxies: Iterable[str],
        tls: TlsConfig | None,
        credential: Credential | None,
        port: int,
        name: str,
        grpc_ports: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._url = registry
        self._registry_config = registry_config
        self._proxies = tuple(proxies)
        self._tls = ClientTls(tls)
        self._credential = credential
        self._port = port
        self._name = name
        self._grpc_ports = grpc_ports

    async def run(self) -> list[Finding]:
        """All findings, the registry's first."""
        found = await self._registry()
        if not self._proxies:
            text = "no proxy was named, so whether one reaches this machine is not known"
            return [*found, note("proxy", text, "give --proxy http://HOST:12480")]
        nonce = secrets.token_hex(16)
        try:
            async with AskedBack(nonce, self._port) as here:
                for proxy in self._proxies:
                    found += await self._proxy(proxy, here, nonce)
            for kind, port in self._grpc_ports.items():
                with contextlib.suppress(ConfigurationError):
                    async with AskedBack(nonce, port) as here:
                        for proxy in self._proxies:
                            found += await self._further(kind, proxy, here, nonce)
        except ConfigurationError as failed:
            remedy = "stop what uses the port, or give another one (--port)"
            found.append(error("port", str(failed), remedy))
        return found

    async def _registry(self) -> list[Finding]:
        try:
            registry = open_registry(self._url, self._registry_config)
        except FingerpostError as failed:
            text = str(failed)
            url = text.startswith("registry URL")
            remedy = "give another one with --registry URL" if url else _CORRECT
            return [error("registry", with_registry_options(text), remedy)]
        try:
            times = []
            for _ in range(_ROUNDS):
                began = time.monotonic()
                await asyncio.wait_for(registry.catalog(), _TIMEOUT_S)
                times.append(time.monotonic() - began)
            answer_s = sorted(times)[_ROUNDS // 2]
            text = f"{self._url} answers in {answer_s * 1000:.1f} ms"
            found = [
                ok("registry", text)
                if answer_s < _SLOW_S
                else warning("registry", text, "run a Consul agent on this machine, and use that")
            ]
            if isinstance(registry, ConsulRegistry):
                found += await self._same_name(registry.url)
        except RegistryDenied as failed:
            remedy = "give its token the right that is missing, or another one with "
            return [error("registry", str(failed), f"{remedy}--registry-token-file")]
        except (FingerpostError, TimeoutError) as failed:
            reason = str(failed) or f"{self._url}: no answer within {_TIMEOUT_S:g} s"
            remedy = "start it, let this machine reach it, and check its token and certificates"
            return [error("registry", reason, remedy)]
        finally:
            await registry.aclose()
        return found

    async def _same_name(self, url: str) -> list[Finding]:
        """Whether another machine has this one's name in Consul, which then takes only one."""
        config = self._registry_config
        http = ConsulHttp(
            url,
            token=Token(config.token, config.token_file),
            tls=Tls(config) if url.startswith("https:") else None,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if problem := await name_taken(http):
                    text, _, remedy = problem.partition(": ")
                    return [error("name", text, remedy)]
                path = f"/v1/catalog/node/{self._name}"
                answer = await http.call("GET", path, any_status=True)
            node = msgspec.json.decode(answer.body)["Node"] if answer.status == 200 else None
        except (FingerpostError, TimeoutError, msgspec.DecodeError, KeyError, TypeError):
            return []  # the embedded registry has no nodes, and a token may not read them
        finally:
            await http.aclose()
        address = str((node or {}).get("Address", ""))
        if not address or is_own_address(address):
            return []
        return [
            error(
                "name",
                f"another machine, {address}, has the name {self._name} in Consul",
                "give this one a name of its own: hostnamectl set-hostname, or node_name of its "
                "Consul agent; if that machine is gone: consul force-leave " + self._name,
            )
        ]

    async def _proxy(self, text: str, here: AskedBack, nonce: str) -> list[Finding]:
        try:
            url = proxy_url(text)
        except FingerpostError as failed:
            return [error("proxy", str(failed), "give --proxy http://HOST:12480")]
        name = f"proxy {url.host}:{url.port}"
        question = {"port": str(here.port), "nonce": nonce}
        sent_at, began = time.time(), time.monotonic()
        try:
            status, body = await self._post(url, question, _TIMEOUT_S)
        except TimeoutError:
            text = f"{url} does not answer within {_TIMEOUT_S:g} s"
            return [error(name, text, "check its firewall, and the route from here")]
        except (aiohttp.ClientError, OSError, ValueError, PeerError) as failed:
            found = failed if isinstance(failed, PeerError) else peer_error(failed, str(url))
            return [error(name, str(found), "start it, or let this machine reach it")]
        answer_s = time.monotonic() - began
        if status != 200:
            return [_refused(name, status, body)]
        try:
            answer = msgspec.json.decode(body, type=ReachAnswer)
        except msgspec.DecodeError:
            return [error(name, f"{url} is not a proxy", "give the URL of a proxy")]
        findings = [*_reached(name, answer, answer_s), _clock(name, answer, sent_at, answer_s)]
        if answer.reached:
            findings.append(await self._speed(name, url, question, here))
        return findings

    async def _further(
        self, kind: str, proxy: str, here: AskedBack, nonce: str
    ) -> Iterable[Finding]:
        """Whether a proxy reaches a further port, in the place of clients, who connect to it."""
        try:
            url = proxy_url(proxy)
            question = {"port": str(here.port), "nonce": nonce}
            status, body = await self._post(url, question, _TIMEOUT_S)
            if status != 200:
                return ()  # the port of HTTP has the finding
            answer = msgspec.json.decode(body, type=ReachAnswer)
        except (FingerpostError, TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return ()  # likewise
        name = f"proxy {url.host}:{url.port} {kind}"
        if answer.reached:
            return (ok(name, f"it reaches port {answer.port} of {answer.address}"),)
        text = f"it cannot reach port {answer.port} of {answer.address}: {answer.problem}"
        remedy = "open that port in the firewall of this machine and on the way: clients of gRPC "
        return (error(name, text, f"{remedy}connect to it"),)

    async def _speed(
        self, name: str, url: URL, question: dict[str, str], here: AskedBack
    ) -> Finding:
        """How fast bytes go to and fro, by a second question; an older proxy refuses it."""
        here.meter = SpeedMeter()
        try:
            status, body = await self._post(url, {**question, "measure": "1"}, _MEASURE_S)
            sent_mbit = (
                msgspec.json.decode(body, type=ReachAnswer).received_mbit if status == 200 else 0
            )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, PeerError) as failed:
            return note(f"{name} speed", f"not measured: {failed or 'no answer in time'}")
        return _judged(name, sent_mbit, here.meter.mbit)

    async def _post(self, url: URL, question: dict[str, str], within_s: float) -> tuple[int, bytes]:
        """The status and the body of a proxy's answer."""
        credential = self._credential
        async with (
            asyncio.timeout(within_s),
            PeerSession(max_bytes=_MAX_BYTES, workers=False) as session,
            session.request(
                "POST",
                url.with_path(REACH_PATH).with_query(question),
                headers={} if credential is None else {"Authorization": credential.header()},
                tls=self._tls.for_host() if url.scheme == "https" else None,
            ) as response,
        ):
            return response.status, await session.read(response, str(url))


def _judged(name: str, sent_mbit: float, received_mbit: float) -> Finding:
    check = f"{name} speed"
    if not sent_mbit or not received_mbit:
        return note(check, "not measured: the proxy is of an older release, or gave up")
    text = f"{received_mbit:,.0f} Mbit/s from it to here, {sent_mbit:,.0f} Mbit/s from here to it"
    if received_mbit >= _LEAST_MBIT and sent_mbit >= _LEAST_MBIT:
        return ok(check, text)
    if received_mbit < _LEAST_MBIT:
        images = received_mbit / _IMAGE_MBIT
        text += f": a worker here gets at most {images:,.0f} images of 640 KB a second on that way"
    return warning(
        check,
        text,
        "check cable, switch and duplex (ethtool), and what limits traffic on the way",
    )


def _refused(name: str, status: int, body: bytes) -> Finding:
    problem = error_from_json(body, status=status, peer=name)
    if isinstance(problem, UnknownPath | MethodNotAllowed):
        text = "it answers, and cannot ask back: it is of an older release, or not a proxy"
        return note(f"{name} back", text, "update it, or give the URL of a proxy")
    if isinstance(problem, Unauthenticated | Forbidden):
        return error(name, problem.message, KNOWN_CREDENTIAL)
    if status == HTTPStatus.NOT_FOUND:
        return error(name, f"it is not a proxy: {problem.message}", "give the URL of a proxy")
    return warning(name, problem.message, "try again; if it stays, look at the proxy's log")


def _reached(name: str, answer: ReachAnswer, answer_s: float) -> Iterable[Finding]:
    there_s = max(0.0, answer_s - answer.answer_s)
    yield ok(name, f"it answers in {there_s * 1000:.1f} ms")
    if answer.reached:
        text = f"it reaches {answer.address}, in {answer.answer_s * 1000:.1f} ms"
        yield ok(f"{name} back", text)
    else:
        yield error(
            f"{name} back",
            f"it cannot reach port {answer.port} of {answer.address}: {answer.problem}",
            "open the worker's port in the firewall of this machine and on the way; behind NAT or "
            "a load balancer give the worker --advertise",
        )


def _clock(name: str, answer: ReachAnswer, sent_at: float, answer_s: float) -> Finding:
    """The offset of the clocks, by NTP's formula."""
    back_at = sent_at + answer_s
    offset_s = ((answer.received_at - sent_at) + (answer.answered_at - back_at)) / 2
    way = "behind" if offset_s > 0 else "ahead of"
    text = f"this clock is {abs(offset_s):.3g} s {way} the proxy's"
    remedy = "let both follow a time server: timedatectl set-ntp true, or chrony"
    if abs(offset_s) > _MOST_OFFSET_S:
        return error(f"{name} clock", f"{text}: leases and certificates do not hold", remedy)
    if abs(offset_s) > _OFFSET_S:
        return warning(f"{name} clock", text, remedy)
    return ok(f"{name} clock", f"the clocks differ by {abs(offset_s) * 1000:.0f} ms")
