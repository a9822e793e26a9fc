"""Credentials in the wrong hands, over real TLS: a stolen lease is useless, and nothing shows one.

Registry, proxy and worker run in this process, as their logs, metrics and traces are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fingerpost.client import Client, ClientConfig
from fingerpost.client.frames import STREAM_TYPE
from fingerpost.client.tracing import Tracing as ClientTracing
from fingerpost.errors import FingerpostError
from fingerpost.proxy import Proxy
from fingerpost.proxy.config import ProxyLeasesConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.security.callers.api_keys import make_key
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.key_files import save_signing_key
from fingerpost.security.tls import ClientTls, TlsConfig
from fingerpost.worker import Worker
from fingerpost.worker.config import LeasesConfig, TelemetryConfig
from fingerpost.worker.telemetry.tracing import Tracing
from tests.support.leases import KEY, OTHER, signed
from tests.support.processes import FINGERPOST
from tests.support.tls_cluster import IMAGE, Secure, secure_cluster, serve_with
from tests.support.waiting import until


@dataclass
class Cluster:
    """A proxy that knows one caller, and a worker that wants leases, both by mutual TLS."""

    secure: Secure
    proxy: Proxy
    worker: Worker
    key: str
    audit: Path
    access: Path

    @contextlib.asynccontextmanager
    async def asking(self, tls: TlsConfig) -> AsyncIterator[aiohttp.ClientSession]:
        """Requests with this certificate to anybody."""
        context = ClientTls(dataclasses.replace(tls, trust_domain=None)).for_host()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, force_close=True)
        ) as http:
            yield http

    def stranger(self) -> TlsConfig:
        """Another client with a right certificate of its own."""
        pair = self.secure.ca.issue("thief")
        return dataclasses.replace(self.secure.client, cert=str(pair.cert), key=str(pair.key))

    async def is_named(self, http: aiohttp.ClientSession) -> bool:
        """Whether `GET /` answers the worker."""
        async with http.get(f"{self.proxy.url}/", headers=_bearer(self.key)) as got:
            return got.status == 200

    async def lease(self, http: aiohttp.ClientSession) -> str:
        """The one of a lookup."""
        async with http.get(
            f"{self.proxy.url}/v1/resolve/flowers", headers=_bearer(self.key)
        ) as got:
            return str((await got.json())["lease"])


@contextlib.asynccontextmanager
async def cluster(folder: Path, *, bind: bool) -> AsyncIterator[Cluster]:
    key_file, callers = folder / "lease.key", folder / "callers.toml"
    audit, access = folder / "audit.log", folder / "access.log"
    save_signing_key(KEY, key_file)
    key = add_caller(callers, "camera", tenant="plant", role="").key
    asks = CallersConfig(policy=str(callers), audit_log=str(audit))
    async with secure_cluster(folder) as secure:
        trust: dict[str, Any] = {
            "client_ca": str(secure.ca.file),
            "ca": str(secure.ca.file),
            "trust_domain": secure.client.trust_domain,
        }
        proxy = await secure.proxy(
            serve_with(secure.ca.issue("proxy"), **trust),
            leases=ProxyLeasesConfig(key_file=key_file, bind=bind),
            callers=asks,
            relay=True,
        )
        worker = await secure.worker(
            serve_with(secure.ca.worker("flowers"), client_ca=trust["client_ca"]),
            leases=LeasesConfig(required=True),
            callers=asks,
            telemetry=TelemetryConfig(access_log=str(access)),
        )
        place = Cluster(secure, proxy, worker, key, audit, access)
        async with place.asking(secure.client) as http:
            await until(lambda: place.is_named(http), "the proxy has seen the worker's certificate")
        yield place


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def test_a_lease_is_of_no_use_to_who_has_not_its_certificate(tmp_path: Path) -> None:
    async with cluster(tmp_path, bind=True) as place:
        async with Client(place.proxy.url, tls=place.secure.client, api_key=place.key) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
        base = f"{place.worker.instance.url}/v1"
        stream = {"Content-Type": STREAM_TYPE}
        async with (
            place.asking(place.secure.client) as owner,
            place.asking(place.stranger()) as thief,
        ):
            lease = await place.lease(owner)
            async with owner.get(f"{place.proxy.url}/", headers=_bearer(place.key)) as got:
                url = await got.text()
            for _ in range(2):  # known by now
                for who, status_ in ((owner, 200), (thief, 403)):
                    for target, more in (
                        (f"{base}/classify/flowers", _bearer(lease)),
                        (url.strip(), {}),
                    ):
                        async with who.post(target, data=IMAGE, headers=more) as answer:
                            text = await answer.text()
                            assert answer.status == status_, (target, text)
                            assert (status_ == 200) is ("lease_wrong_certificate" not in text)
            async with thief.post(
                f"{base}/stream/flowers", data=b"", headers={**stream, **_bearer(lease)}
            ) as answer:
                assert answer.status == 403
        # By the client's own hand: the thief's client carries it, and gets nothing.
        async with Client(
            registry=place.secure.registry.url,
            registry_config=place.worker._config.registry_config,
            tls=place.stranger(),
            config=ClientConfig(lease=lease, timeout_s=5.0),
        ) as client:
            with pytest.raises(FingerpostError, match="bound to another certificate"):
                await client.classify(IMAGE, "flowers")
        # A worker does not hear at all who shows no certificate.
        bare = dataclasses.replace(place.secure.client, cert=None, key=None)
        async with place.asking(bare) as nobody:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await nobody.post(f"{base}/classify/flowers", data=IMAGE, headers=_bearer(lease))


async def test_no_credential_is_shown_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right and wrong ones, where they belong and where they do not."""
    caplog.set_level(logging.DEBUG)
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(
        "fingerpost.worker.telemetry.observer.start_tracing", lambda *_, **__: Tracing(provider)
    )
    made_up, forged = make_key(), signed(key=OTHER, aud="flowers")
    shown: list[str] = []
    async with cluster(tmp_path, bind=False) as place:
        tls, base = place.secure.client, place.worker.instance.url
        async with Client(
            place.proxy.url, tls=tls, api_key=place.key, tracing=ClientTracing(provider)
        ) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
            shown.append(f"{client!r} {client.stats!r}")
        async with Client(
            place.proxy.url, tls=tls, api_key=place.key, config=ClientConfig(relay=True)
        ) as client:
            assert (await client.classify(IMAGE, "flowers")).label == "rose"
        shown += await asyncio.to_thread(_status, place)  # first: wrong keys wait longer each time
        for bad in (
            Client(place.proxy.url, tls=tls, api_key=made_up),
            Client(
                registry=place.secure.registry.url,
                registry_config=place.worker._config.registry_config,
                tls=tls,
                config=ClientConfig(lease=forged, timeout_s=5.0),
            ),
        ):
            async with bad:
                with pytest.raises(FingerpostError) as raised:
                    await bad.classify(IMAGE, "flowers")
                shown.append(f"{raised.value} {raised.value!r} {bad!r}")
        async with place.asking(tls) as http:
            lease = await place.lease(http)
            async with http.get(f"{place.proxy.url}/", headers=_bearer(place.key)) as got:
                url = (await got.text()).strip()
                # A browser would not tell the next page where it came from.
                assert got.headers["Referrer-Policy"] == "no-referrer"
                assert got.headers["Cache-Control"] == "no-store"
            async with http.post(
                f"{place.proxy.url}/v1/classify/flowers",
                headers=_bearer(place.key),
                allow_redirects=False,
            ) as got:
                assert got.status == 307
                assert got.headers["Referrer-Policy"] == "no-referrer"
            secrets = [place.key, made_up, lease, forged, url.split("/lease/")[1].split("/")[0]]
            for credential in secrets:
                spellings = (
                    _bearer(credential),
                    {"Authorization": f"Basic {credential}"},
                    {"Authorization": credential},
                    {"Referer": f"{base}/lease/{credential}/", "Cookie": f"key={credential}"},
                    {"Fingerpost-Class": credential},
                )
                for path in (
                    *("/v1/classify/flowers", "/v1/classify/birds", f"/lease/{credential}/"),
                    *(f"/lease/{credential}x/v1/nothing", f"/lease/{credential}%0a/"),
                ):
                    for headers in spellings:
                        await _refused(http, f"{base}{path}", headers, shown)
                if credential == lease:  # who tries more has to wait for each answer
                    for target in (
                        f"{base}/v1/admin/models/flowers/rollback",
                        f"{place.proxy.url}/v1/relay/flowers",
                        f"{place.proxy.url}/v1/classify/flowers",
                    ):
                        await _refused(http, target, spellings[0], shown)
            for server in (base, place.proxy.url):
                for path in (
                    *("/", "/metrics", "/load", "/health/ready", "/v1/services"),
                    *("/v1/models/flowers", "/v2/models/flowers", "/.well-known/jwks.json"),
                ):
                    headers = {"Accept": "text/html" if path == "/" else "*/*"}
                    async with http.get(
                        f"{server}{path}", headers={**headers, **_bearer(place.key)}
                    ) as got:
                        shown.append(await got.text())
        registered = place.worker.instance
        shown.append(repr(registered) + repr(place.worker._config) + repr(place.proxy))
    shown += [each.to_json() for each in spans.get_finished_spans()]
    logs = [place.access.read_text(), place.audit.read_text(), caplog.text]
    # What is looked at is there, and full.
    assert "fingerpost_worker_lease_refused_requests_total" in "".join(shown)
    assert "worker.request" in "".join(shown)
    assert logs[0].count("\n") > 100
    assert '"result":"refused"' in logs[1]
    assert logs[2]
    for secret in secrets:
        for text in (*shown, *logs):
            at = text.find(secret[-40:])
            assert at < 0, f"shown: {text[max(0, at - 300) : at + 80]!r}"


async def _refused(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str], shown: list[str]
) -> None:
    async with http.post(url, data=b"not an image", headers=headers, allow_redirects=False) as got:
        shown.append(f"{got.status} {await got.text()} {got.headers}")
        assert got.status >= 400, (url, headers)


def _status(place: Cluster) -> list[str]:
    """What `fingerpost status` prints, to the caller and to somebody else."""
    tls = place.secure.client
    command = (
        *(*FINGERPOST, "status", "--proxy", place.proxy.url, "--tls-ca", str(tls.ca)),
        *("--tls-cert", str(tls.cert), "--tls-key", str(tls.key)),
        *("--trust-domain", str(tls.trust_domain)),
    )
    printed = []
    for key, form in ((place.key, "--json"), (make_key(), "")):
        done = subprocess.run(
            [*command, *filter(None, [form])],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "FINGERPOST_API_KEY": key},
        )
        assert (done.returncode == 0) is (key == place.key), done.stderr
        printed.append(done.stdout + done.stderr)
    return printed
