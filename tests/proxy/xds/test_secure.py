"""xDS over TLS, for callers, to workers with TLS that require leases; unmodified clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from joserfc import jwk, jwt
from tests.proxy.xds.follower import Follower
from tests.support.certificates import TRUST_DOMAIN
from tests.support.guarded import ALL, OFF, ONE, guarded_proxy
from tests.support.guarded import POLICY as TWO_MODELS
from tests.support.leases import KEY
from tests.support.tls_cluster import IMAGE, Secure, secure_cluster, serve_with
from tests.support.waiting import until

from fingerpost.deploy.xds_bootstrap import ClientFiles, grpc_bootstrap
from fingerpost.proxy import Proxy
from fingerpost.proxy.config import ProxyLeasesConfig
from fingerpost.proxy.xds import workers
from fingerpost.proxy.xds.resources import CLUSTER, LISTENER, ROUTES
from fingerpost.proxy.xds_config import XdsConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.security.callers.api_keys import hash_key, make_key
from fingerpost.security.key_files import save_signing_key
from fingerpost.security.tls import ClientTls, TlsConfig
from fingerpost.worker.config import LeasesConfig

pytestmark = pytest.mark.shell

PROGRAM = Path(__file__).with_name("secure_client.py")
ISSUER = "https://login.example.org"
SIGNER = jwk.ECKey.generate_key("P-256", {"kid": "k1"})
POLICY = """
[tenants.shop]
models = ["flowers"]

[[callers]]
name = "web"
tenant = "shop"
certificates = ["spiffe://example.org/fingerpost/client/web"]
tokens = [{{ issuer = "{issuer}", subject = "web" }}]

[[issuers]]
issuer = "{issuer}"
audience = "fingerpost"
jwks_file = "{keys}"
"""


def token(lasts_s: float = 600) -> str:
    claims = {"iss": ISSUER, "aud": "fingerpost", "sub": "web", "exp": round(time.time() + lasts_s)}
    return jwt.encode({"alg": "ES256", "kid": "k1"}, claims, SIGNER, algorithms=["ES256"])


class Program:
    """Triton's client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def infer(self) -> str:
        out, lines = self._process.stdin, self._process.stdout
        assert out is not None
        assert lines is not None
        out.write(b"\n")
        async with asyncio.timeout(30):
            return (await lines.readline()).decode().strip()


class Place:
    """A proxy that knows its callers, with workers that want leases; mutual TLS everywhere."""

    def __init__(self, secure: Secure, folder: Path, proxy: Proxy) -> None:
        self.secure = secure
        self.folder = folder
        self.proxy = proxy
        self.lease = folder / "lease"
        pair = secure.ca.issue("web", uris=[f"spiffe://{TRUST_DOMAIN}/fingerpost/client/web"])
        self.files = ClientFiles(ca=str(secure.ca.file), cert=str(pair.cert), key=str(pair.key))

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.proxy.xds_port}"

    @contextlib.asynccontextmanager
    async def program(self, files: ClientFiles, **variables: str) -> AsyncIterator[Program]:
        bootstrap = grpc_bootstrap([("127.0.0.1", self.proxy.xds_port or 0)], files=files)
        image = self.folder / "image.png"
        image.write_bytes(IMAGE)
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, "xds:///flowers", image, self.lease,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Program(process)
        finally:
            process.kill()
            await process.communicate()

    async def ask(self) -> None:
        """Get a lease by HTTP into the file, as `fingerpost lease --watch` does."""
        tls = TlsConfig(ca=self.files.ca, cert=self.files.cert, key=self.files.key)
        connector = aiohttp.TCPConnector(ssl=ClientTls(tls).for_host())
        async with aiohttp.ClientSession(connector=connector) as http:

            async def answered() -> bool:
                url = f"{self.proxy.url}/v1/resolve/flowers"
                headers = {"Authorization": f"Bearer {token()}"}
                async with http.get(url, headers=headers) as answer:
                    found = await answer.json()
                self.lease.write_text(found.get("lease", ""))
                return len(found.get("instances", ())) == 1

            await until(answered, "the proxy has seen the worker's certificate", within_s=10)


@contextlib.asynccontextmanager
async def place(folder: Path, *, mutual: bool = True) -> AsyncIterator[Place]:
    """A cluster; `mutual` asks clients for certificates, and binds leases to them."""
    keys, policy = folder / "keys.json", folder / "callers.toml"
    keys.write_text(json.dumps({"keys": [SIGNER.as_dict(private=False)]}))
    policy.write_text(POLICY.format(issuer=ISSUER, keys=keys))
    save_signing_key(KEY, folder / "lease.key")
    async with secure_cluster(folder) as secure:
        ca = str(secure.ca.file)
        asks = {"client_ca": ca} if mutual else {}
        proxy = await secure.proxy(
            serve_with(secure.ca.issue("proxy"), ca=ca, trust_domain=TRUST_DOMAIN, **asks),
            callers=CallersConfig(policy=str(policy), policy_poll_s=0.05),
            leases=ProxyLeasesConfig(key_file=folder / "lease.key", bind=mutual),
            xds=XdsConfig(port=0, look_every_s=0.05),
        )
        await secure.worker(
            serve_with(secure.ca.worker("flowers"), **asks),
            grpc_port=0,
            leases=LeasesConfig(required=True),
        )
        found = Place(secure, folder, proxy)
        await found.ask()
        yield found


async def test_tritons_client_by_mutual_tls_with_a_lease(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.program(here.files) as program:
        assert await program.infer() == "0"
        good = here.lease.read_text()
        here.lease.write_text("")
        assert "UNAUTHENTICATED" in await program.infer()
        here.lease.write_text(good)
        assert await program.infer() == "0", "the file is read for each call"


async def test_a_worker_that_is_another_ones_gets_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "worker_id", lambda domain, _: f"spiffe://{domain}/another")
    async with place(tmp_path) as here, here.program(here.files) as program:
        told = await program.infer()
        assert "UNAVAILABLE" in told
        assert "SAN" in told


async def test_a_token_for_the_proxy_and_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token())
    async with place(tmp_path, mutual=False) as here:
        files = ClientFiles(ca=here.files.ca, token_file=str(file))
        variable = "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS"
        async with here.program(files, **{variable: "true"}) as program:
            assert await program.infer() == "0"
        async with here.program(ClientFiles(ca=here.files.ca)) as program:
            told = await program.infer()
            assert "UNAVAILABLE" in told or "DEADLINE" in told
            assert "say who you are" in told


async def asked(follower: Follower, *names: str) -> set[str] | grpc.StatusCode:
    """Of which of these clusters it is told, or how its call ends."""
    try:
        return await follower.ask(CLUSTER, *names)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_who_may_follow_what(tmp_path: Path) -> None:
    async with guarded_proxy(tmp_path, xds=XdsConfig(port=0, look_every_s=0.05)) as guarded:
        server = f"127.0.0.1:{guarded.world.proxy.xds_port}"
        both = ("digits", "cats")
        for key, found in (
            ("", grpc.StatusCode.UNAUTHENTICATED),
            (make_key(), grpc.StatusCode.UNAUTHENTICATED),
            ("a lease, or anything else", grpc.StatusCode.UNAUTHENTICATED),
            (OFF, grpc.StatusCode.PERMISSION_DENIED),
            (ONE, {"digits"}),
            (ALL, {"digits", "cats"}),
        ):
            async with Follower(server, bearer=key) as follower:
                assert await asked(follower, *both) == found, key
        await until(lambda: any("'cats'" in line["detail"] for line in guarded.lines()), "written")
        (line,) = [each for each in guarded.lines() if "'cats'" in each["detail"]]
        assert (line["who"], line["action"], line["result"]) == ("one", "xds", "refused")
        async with Follower(server, bearer=ONE) as envoy:
            assert await envoy.ask(CLUSTER) == {"http/digits", "http/digits@1"}
            await envoy.send(ROUTES, "fingerpost")
            assert b"cats" not in (await envoy.receive()).resources[0].value


async def test_rights_that_change_while_a_client_is_connected(tmp_path: Path) -> None:
    async with guarded_proxy(tmp_path, xds=XdsConfig(port=0, look_every_s=0.05)) as guarded:
        server = f"127.0.0.1:{guarded.world.proxy.xds_port}"
        async with Follower(server, bearer=ONE) as one, Follower(server, bearer=ALL) as other:
            assert await asked(one, "digits", "cats") == {"digits"}
            assert await asked(other, "digits", "cats") == {"digits", "cats"}
            more = TWO_MODELS.replace('models = ["digits"]', 'models = ["digits", "cats"]')
            guarded.policy.write_text(more)
            assert len((await one.receive()).resources) == 2, "told without asking again"
            guarded.policy.write_text(more.replace(hash_key(ONE), hash_key(make_key())))
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await one.receive()
            assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await other.ask(LISTENER, "digits") == {"digits"}, "nobody else is disturbed"


async def test_a_call_ends_with_its_token(tmp_path: Path) -> None:
    skew_s = 30
    async with place(tmp_path, mutual=False) as here:
        trusted = grpc.ssl_channel_credentials(here.secure.ca.pem)
        bearer = token(2.5 - skew_s)
        async with Follower(here.server, credentials=trusted, bearer=bearer) as follower:
            assert await follower.ask(CLUSTER, "flowers") == {"flowers"}
            with pytest.raises(grpc.aio.AioRpcError, match="the token has expired") as ended:
                await follower.receive()
            assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_renewed_certificate_is_shown_to_new_clients(tmp_path: Path) -> None:
    async with place(tmp_path, mutual=False) as here:
        trusted = grpc.ssl_channel_credentials(here.secure.ca.pem)

        async def works() -> bool:
            async with Follower(here.server, credentials=trusted, bearer=token()) as follower:
                return await asked(follower, "flowers") == {"flowers"}

        assert await works()
        here.secure.ca.issue("proxy", hosts=["elsewhere.example.org"])

        async def refused() -> bool:
            return not await works()

        await until(refused, "the other certificate has not this host", within_s=10)


async def test_without_a_certificate_nothing_is_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for credentials in (None, grpc.ssl_channel_credentials(here.secure.ca.pem)):
            async with Follower(here.server, credentials=credentials) as follower:
                assert await asked(follower, "flowers") is grpc.StatusCode.UNAVAILABLE
