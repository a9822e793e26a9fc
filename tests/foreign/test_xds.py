"""Envoy, and a client of gRPC in JavaScript, as their projects publish them, by a proxy's xDS."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.foreign.environments import environment, npm_environment
from tests.proxy.xds.echo import XdsWorld, xds_world
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.waiting import until

from fingerpost.deploy.xds_bootstrap import ClientFiles, envoy_bootstrap, grpc_bootstrap
from fingerpost.registry.access import CallersConfig
from fingerpost.security.callers.policy_editor import add_caller
from fingerpost.security.tls import TlsConfig

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


async def three(world: XdsWorld) -> None:
    for name in ("a", "b", "c"):
        await world.add(name)

    async def known() -> bool:
        async with (
            aiohttp.ClientSession(world.proxy.url) as http,
            http.get("/v1/resolve/digits") as answer,
        ):
            return answer.status == 200 and len((await answer.json())["instances"]) == 3

    await until(known, within_s=10)


@asynccontextmanager
async def envoy(
    folder: Path, world: XdsWorld, files: ClientFiles, key: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """Requests by an Envoy, once that serves."""
    binary, port = environment("envoy") / "envoy", free_port()
    made = envoy_bootstrap(
        [("127.0.0.1", world.proxy.xds_port or 0)], ("127.0.0.1", port), files=files, credential=key
    )
    (folder / "envoy.json").write_text(json.dumps(made))
    process = await asyncio.create_subprocess_exec(
        binary, "-c", folder / "envoy.json",
        "--disable-hot-restart", "--concurrency", "1", "-l", "warn",
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

            async def serves() -> bool:
                try:
                    return (await post(http, "digits"))[0] == 201
                except aiohttp.ClientError:
                    return False

            await until(serves, within_s=30)
            yield http
    finally:
        process.kill()
        await process.wait()


async def post(http: aiohttp.ClientSession, host: str) -> tuple[int, str]:
    """The status of a request for a model, and who answered."""
    async with http.post("/v1/classify/digits", data=b"an image", headers={"Host": host}) as answer:
        return answer.status, (await answer.text()).partition(":")[2]


async def test_a_plain_http_program_by_an_envoy_beside_it(tmp_path: Path) -> None:
    async with xds_world() as world:
        await three(world)
        async with envoy(tmp_path, world, ClientFiles(), "") as http:
            shares = Counter([await post(http, "digits") for _ in range(90)])
            assert {status for status, _ in shares} == {201}
            assert len(shares) == 3
            assert min(shares.values()) > 15
            await world.workers["a"].stop()
            for _ in range(90):
                assert (await post(http, "canary.digits"))[0] == 201, "another worker has it"
            assert (await post(http, "dogs"))[0] == 404


async def test_an_envoy_that_a_proxy_asks_who_it_is(tmp_path: Path) -> None:
    ca, policy = Authority(tmp_path), tmp_path / "callers.toml"
    server, own = ca.issue("proxy"), ca.issue("envoy")
    key = add_caller(policy, "sidecar", tenant="shop", role="").key
    settings = {
        "tls": TlsConfig(cert=str(server.cert), key=str(server.key), client_ca=str(ca.file)),
        "callers": CallersConfig(policy=str(policy)),
    }
    files = ClientFiles(ca=str(ca.file), cert=str(own.cert), key=str(own.key))
    async with xds_world(settings) as world:
        await world.add("a")
        async with envoy(tmp_path, world, files, key) as http:
            assert (await post(http, "digits"))[0] == 201


async def test_a_client_in_javascript() -> None:
    modules = npm_environment("@grpc/grpc-js@1.14.7", "@grpc/grpc-js-xds@1.14.1")
    async with xds_world() as world:
        await three(world)
        bootstrap = grpc_bootstrap([("127.0.0.1", world.proxy.xds_port or 0)])
        process = await asyncio.create_subprocess_exec(
            "node", Path(__file__).with_name("echo.js"), "xds:///digits", "90",
            env={
                **os.environ,
                "NODE_PATH": str(modules),
                "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap),
            },
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        told = json.loads(out)
        assert not told["errors"]
        assert told["shares"].keys() == {"a", "b", "c"}
