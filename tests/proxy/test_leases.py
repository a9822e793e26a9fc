"""A proxy that signs leases, and a real worker that wants them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from msgspec.structs import replace
from tests.proxy.world import instance
from tests.support.certificates import Authority, Pair
from tests.support.colours import encoded
from tests.support.leases import KEY, OTHER, claims_of
from tests.support.rig import Rig, serving
from tests.support.waiting import until

from fingerpost.client import Client
from fingerpost.client.wire import INDEX_HEADER
from fingerpost.errors import ConfigurationError, LeaseError, RegistryDenied
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.proxy.config import ProxyLeasesConfig
from fingerpost.proxy.leases import ProxyLeases
from fingerpost.registry import Registry, open_registry
from fingerpost.registry.documents import LEASE_KEYS
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.security.key_files import save_signing_key
from fingerpost.security.keys import PublicKeys
from fingerpost.security.leases.config import LeaseConfig, LeaseRules
from fingerpost.security.leases.verifier import LeaseVerifier
from fingerpost.security.tls import TlsConfig
from fingerpost.worker.serving.lease_keys import LeaseKeys

IMAGE = encoded("red")


@dataclass
class Place:
    """A registry, a proxy with a key, and a worker that requires leases and reads the registry."""

    proxy: Proxy
    registry: Registry
    embedded: EmbeddedRegistry
    rig: Rig
    http: aiohttp.ClientSession
    key_file: Path


@contextlib.asynccontextmanager
async def place(
    tmp_path: Path,
    *,
    signing: LeaseConfig | None = None,
    zmq: bool = False,
    rules: LeaseRules | None = None,
    **settings: object,
) -> AsyncIterator[Place]:
    key_file = tmp_path / "lease.key"
    save_signing_key(KEY, key_file, replace=True)
    async with contextlib.AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(EmbeddedRegistry(port=0))
        registry = open_registry(embedded.url)
        stack.push_async_callback(registry.aclose)
        leases = ProxyLeasesConfig(key_file=key_file, signing=signing or LeaseConfig())
        config = ProxyConfig(registry=embedded.url, port=0, leases=leases, **settings)  # type: ignore[arg-type]
        proxy = await stack.enter_async_context(Proxy(config))
        keys = LeaseKeys.from_registry(registry)
        await until(lambda: registry.document(LEASE_KEYS))
        await stack.enter_async_context(keys)
        verifier = LeaseVerifier(keys.current, rules or LeaseRules(), time.time)
        rig = await stack.enter_async_context(serving(leases=verifier, zmq=zmq))
        worker = instance("w", rig.port, service="colours", boot_id=1, meta={"fingerpost": "0.2.0"})
        if zmq:
            worker = replace(worker, ports={"http": rig.port, "zmq": rig.zmq_port})
        await registry.register(worker)
        http = await stack.enter_async_context(aiohttp.ClientSession(proxy.url))
        place = Place(proxy, registry, embedded, rig, http, key_file)
        await until(lambda: listed(place))
        yield place


async def listed(place: Place) -> bool:
    async with place.http.get("/v1/resolve/colours") as response:
        return response.status == 200


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_the_one_liner_stays_a_complete_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    image = tmp_path / "image.png"
    image.write_bytes(IMAGE)
    async with place(tmp_path) as here:
        url = ""
        for _ in range(2):  # the second answer comes by the fast path
            url = (await curl(here.proxy.url)).strip()
            assert "/lease/" in url
            assert json.loads(await curl("-F", f"data=@{image}", url))[0][0] == "red"
        redirected = f"{here.proxy.url}/v1/classify/colours"
        early = "-L", "-H", "Expect: 100-continue"
        answer = await curl(*early, "--data-binary", f"@{image}", redirected)
        assert json.loads(answer)["results"][0]["predictions"][0][0] == "red"
        bare = f"http://127.0.0.1:{here.rig.port}/"
        assert "lease_required" in await curl("--data-binary", f"@{image}", bare)
        token = url.split("/lease/")[1].partition("/")[0]
        claims = claims_of(token)
        assert (claims["aud"], claims["sub"], claims["iss"]) == ("colours", "default", "fingerpost")
        assert 30 <= claims["exp"] - time.time() <= 61
        async with here.http.get("/metrics") as response:
            assert token not in await response.text()
        async with here.http.get("/", headers={"Accept": "*/*"}) as response:
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "eyJ" not in caplog.text


async def test_a_lookup_carries_a_lease_and_is_held_so_long_that_the_next_comes_in_time(
    tmp_path: Path,
) -> None:
    async with place(tmp_path, signing=LeaseConfig(life_s=12.0)) as here:
        seen = set()
        index = "0"
        began = time.monotonic()
        for _ in range(5):
            held = {"index": index, "wait": "60s"} if index != "0" else {}
            async with here.http.get("/v1/resolve/colours", params=held) as response:
                index = response.headers[INDEX_HEADER]
                token = (await response.json())["lease"]
            seen.add(token)
            assert claims_of(token)["exp"] - time.time() >= 12 / 3
            async with here.http.post(
                f"http://127.0.0.1:{here.rig.port}/",
                data=IMAGE,
                headers={"Authorization": f"Bearer {token}"},
            ) as response:
                assert response.status == 200
        assert time.monotonic() - began < 20
        assert len(seen) >= 2


async def test_the_relay_attaches_the_lease_itself(tmp_path: Path) -> None:
    async with place(tmp_path, relay=True) as here:
        headers = {"Authorization": "Bearer something-for-the-proxy"}
        async with here.http.post("/v1/relay/colours", data=IMAGE, headers=headers) as response:
            assert response.status == 200, await response.text()


@pytest.mark.parametrize("off_s", [600.0, -600.0], ids=["ahead", "behind"])
async def test_a_proxy_whose_clock_is_ten_minutes_off_is_said_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + off_s)
    monkeypatch.setattr("fingerpost.proxy.leases.time", wrong)
    errors: list[LeaseError] = []
    async with place(tmp_path) as here, Client(here.proxy.url) as client:
        for _ in range(3):
            with pytest.raises(LeaseError) as raised:
                await client.classify(IMAGE, "colours", timeout_s=5.0)
            errors.append(raised.value)
    assert {each.code for each in errors} == {"lease_invalid" if off_s > 0 else "lease_expired"}
    lines = [each for each in caplog.messages if "clock" in each]
    for text in (*(each.message for each in errors), *lines):
        assert "compare the clocks of the proxy and of this worker" in text
        assert "NTP" in text
    assert len(lines) == 1


async def test_its_keys_are_published_where_there_are_none(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with here.http.get("/.well-known/jwks.json") as response:
            assert response.content_type == "application/jwk-set+json"
            assert PublicKeys.decode(await response.read(), "proxy") == KEY.public
        published = await here.registry.document(LEASE_KEYS)
        assert published is not None
        assert PublicKeys.decode(published, "registry") == KEY.public
        save_signing_key(OTHER, here.key_file, replace=True)

        async def uses_the_new_one() -> bool:
            async with here.http.get("/.well-known/jwks.json") as response:
                keys = PublicKeys.decode(await response.read(), "proxy")
            return keys == KEY.public.having(OTHER.public)

        await until(uses_the_new_one)


async def test_a_key_that_nobody_believes_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key_file = tmp_path / "lease.key"
    save_signing_key(KEY, key_file)
    async with EmbeddedRegistry(port=0) as embedded:
        registry = open_registry(embedded.url)
        await registry.publish(LEASE_KEYS, OTHER.public.encode())
        leases = ProxyLeasesConfig(key_file=key_file)
        async with Proxy(ProxyConfig(registry=embedded.url, port=0, leases=leases)):
            await until(lambda: "fingerpost keys publish" in caplog.text)
        published = await registry.document(LEASE_KEYS)
        await registry.aclose()
    assert published == OTHER.public.encode()  # it is not the proxy's to change


async def test_a_proxy_that_may_not_publish_says_who_must(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Kubernetes, where proxies can write nothing."""
    key_file = tmp_path / "lease.key"
    save_signing_key(KEY, key_file)

    class ReadOnly:
        async def document(self, name: str) -> bytes | None:
            return None

        async def publish(self, name: str, content: bytes) -> None:
            raise RegistryDenied("Missing right: the verb 'patch' on 'configmaps'")

    config, directory = ProxyLeasesConfig(key_file=key_file), SimpleNamespace()
    async with ProxyLeases(config, ReadOnly(), directory):  # type: ignore[arg-type]
        await until(lambda: "fingerpost keys publish" in caplog.text)
        assert "the verb 'patch'" in caplog.text


async def test_a_key_file_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    key_file = tmp_path / "lease.key"
    save_signing_key(KEY, key_file)
    key_file.chmod(0o644)
    leases = ProxyLeasesConfig(key_file=key_file)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        async with Proxy(ProxyConfig(registry="http://127.0.0.1:9", port=0, leases=leases)):
            pass


async def test_without_a_key_nothing_is_different(tmp_path: Path) -> None:
    async with EmbeddedRegistry(port=0) as embedded, serving() as rig:
        registry = open_registry(embedded.url)
        await registry.register(instance("w", rig.port, service="colours", boot_id=1))
        async with (
            Proxy(ProxyConfig(registry=embedded.url, port=0)) as proxy,
            aiohttp.ClientSession(proxy.url) as http,
        ):
            async with http.get("/v1/resolve/colours") as response:
                assert "lease" not in await response.json()
                assert "Cache-Control" not in response.headers
            async with http.get("/.well-known/jwks.json") as response:
                assert await response.json() == {"keys": []}
        await registry.aclose()


async def test_with_bind_every_lease_is_bound_to_the_certificate_that_was_shown(
    tmp_path: Path,
) -> None:
    ca = Authority(tmp_path)
    server, *clients = (ca.issue(name) for name in ("server", "anna", "bob"))
    key_file = tmp_path / "lease.key"
    save_signing_key(KEY, key_file)
    async with EmbeddedRegistry(port=0) as embedded, contextlib.AsyncExitStack() as stack:
        registry = open_registry(embedded.url)
        stack.push_async_callback(registry.aclose)
        rig = await stack.enter_async_context(serving())
        worker = instance("w", rig.port, service="colours", boot_id=1, meta={"fingerpost": "0.2.0"})
        await registry.register(worker)
        config = ProxyConfig(
            registry=embedded.url,
            port=0,
            tls=TlsConfig(cert=str(server.cert), key=str(server.key), client_ca=str(ca.file)),
            leases=ProxyLeasesConfig(key_file=key_file, bind=True),
        )
        proxy = await stack.enter_async_context(Proxy(config))
        await until(lambda: leases_for(proxy, ca, clients[0]))
        for client in (*clients, *clients):  # `GET /` of everybody may be answered from memory
            found = await leases_for(proxy, ca, client)
            pem = client.cert.read_text()
            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
            thumbprint = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            assert [claims_of(token)["cnf"]["x5t#S256"] for token in found] == [thumbprint] * 3


async def leases_for(proxy: Proxy, ca: Authority, client: Pair) -> list[str]:
    """The leases of a lookup, of `GET /` and of a redirect; none while no worker is listed."""
    context = ssl.create_default_context(cafile=str(ca.file))
    await asyncio.to_thread(context.load_cert_chain, client.cert, client.key)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(proxy.url, connector=connector) as http:
        async with http.get("/v1/resolve/colours") as answer:
            if answer.status != 200:
                return []
            found = [json.loads(await answer.text())["lease"]]
        async with http.get("/") as answer:
            found.append((await answer.text()).split("/lease/")[1].split("/")[0])
        async with http.post("/v1/classify/colours", allow_redirects=False) as answer:
            found.append(answer.headers["Location"].split("/lease/")[1].split("/")[0])
    return found


@pytest.mark.parametrize(
    ("leases", "says"),
    [
        (lambda: ProxyLeasesConfig(bind=True), "bind has an effect only with leases.key_file"),
        (
            lambda: ProxyLeasesConfig(signing=LeaseConfig(life_s=60)),
            "signing has an effect only with leases.key_file",
        ),
        (
            lambda: ProxyConfig(
                registry="http://127.0.0.1:9",
                leases=ProxyLeasesConfig(key_file=Path("key"), bind=True),
            ),
            "give --tls-client-ca",
        ),
    ],
    ids=["bind", "life", "no certificates"],
)
def test_a_setting_without_effect_is_an_error(leases: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        leases()
