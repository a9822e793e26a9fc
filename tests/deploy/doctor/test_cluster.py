"""A machine and its cluster: a real registry, a real proxy, and the command itself."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.support.consul_process import ConsulProcess
from tests.support.kubernetes.fake_api import FakeApi
from tests.support.nvml import build_nvml
from tests.support.ports import free_port
from tests.support.processes import FINGERPOST

from fingerpost.client.credential import Credential
from fingerpost.client.reach import REACHED_PATH, ReachAnswer
from fingerpost.deploy.doctor.cluster_checks import ClusterChecks
from fingerpost.deploy.doctor.finding import Finding, Level
from fingerpost.deploy.doctor.grpc_checks import check_grpc
from fingerpost.errors import UnknownPath
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import RegistryConfig
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind, error_response, serve
from fingerpost.security.callers.policy_editor import add_caller

pytestmark = pytest.mark.shell


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as embedded:
        yield embedded.url


async def look(registry: str, *proxies: str, **changed: Any) -> dict[str, Finding]:
    settings: dict[str, Any] = {
        "registry_config": RegistryConfig(), "tls": None, "credential": None, "port": 0,
        "name": "gpu-7", **changed,
    }  # fmt: skip
    checks = ClusterChecks(registry=registry, proxies=proxies, **settings)
    return {f"{each.level.name} {each.check}": each for each in await checks.run()}


async def test_both_ways(registry: str) -> None:
    async with Proxy(ProxyConfig(registry=registry, port=0)) as proxy:
        found = await look(registry, proxy.url)
    name = f"proxy 127.0.0.1:{proxy.port}"
    checks = ["registry", name, f"{name} back", f"{name} clock", f"{name} speed"]
    assert [each.check for each in found.values()] == checks
    assert "it reaches 127.0.0.1, in " in found[f"OK {name} back"].message
    slow = {each.level for each in found.values()} - {Level.OK}
    assert slow <= {Level.WARNING}, "a busy machine may be slow"
    speed = re.match(
        r"([\d,]+) Mbit/s from it to here, ([\d,]+) Mbit/s from here to it",
        next(reversed(found.values())).message,
    )
    assert speed
    assert all(int(each.replace(",", "")) > 10 for each in speed.groups())


async def test_what_cannot_be_reached(registry: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    found = await look(nobody, nobody, "ftp://proxy")
    assert "Connection refused" in found["ERROR registry"].message
    name = nobody.removeprefix("http://")
    assert "Connection refused" in found[f"ERROR proxy {name}"].message
    assert "not a valid proxy URL" in found["ERROR proxy"].message
    assert "give --proxy" in (await look(registry))["NOTE proxy"].remedy


async def test_a_missing_right_is_named_with_its_remedy(tmp_path: Path) -> None:
    api = FakeApi()
    url = await api.start()
    token = next(iter(api.tokens))
    api.denied.add((token, "list leases"))
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": url}}],
        "users": [{"name": "a", "user": {"token": token}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config), "utf-8")
    try:
        found = await look(f"kubernetes://vision?kubeconfig={tmp_path / 'config'}")
    finally:
        await api.stop()
    denied = found["ERROR registry"]
    assert "Missing right: the verb 'list' on 'leases'" in denied.message
    assert denied.remedy.startswith("give its token the right that is missing")


async def test_the_workers_port_may_be_taken(registry: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - as the worker would
        found = await look(registry, "http://127.0.0.1:9", port=taken.getsockname()[1])
    assert "Address already in use" in found["ERROR port"].message


async def test_further_ports_are_reached_or_not(registry: str) -> None:
    ports = {"grpc": free_port(), "xds": free_port()}
    async with Proxy(ProxyConfig(registry=registry, port=0)) as proxy:
        name = f"proxy 127.0.0.1:{proxy.port}"
        found = await look(registry, proxy.url, grpc_ports=ports)
        for kind, port in ports.items():
            text = f"it reaches port {port} of 127.0.0.1"
            assert found[f"OK {name} {kind}"].message == text
        with socket.create_server(("0.0.0.0", ports["grpc"])):  # noqa: S104 - as the worker would
            found = await look(registry, proxy.url, grpc_ports=ports)
        assert f"OK {name} xds" in found
        assert not [each for each in found if each.endswith(" grpc")], "check_grpc says it"
    answer = ReachAnswer(
        address="10.0.0.7", port=12990, reached=False, problem="Connection refused"
    )
    async with Old(answer) as url:
        found = await look(registry, url, grpc_ports=ports)
    back = found[f"ERROR proxy {url.removeprefix('http://')} grpc"]
    assert back.message == "it cannot reach port 12990 of 10.0.0.7: Connection refused"
    assert "firewall" in back.remedy
    async with Old(None) as url:
        found = await look(registry, url, grpc_ports=ports)
    assert not [each for each in found if each.endswith((" grpc", " xds"))]


def test_grpc_needs_its_extra_and_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_at(port: int, *, running: bool = False) -> list[tuple[str, str, str]]:
        ports = {"grpc": port, "xds": 0}
        found = check_grpc(ports, port=8500, running=running)
        return [(each.level.name, each.check, f"{each.message} {each.remedy}") for each in found]

    free = free_port()
    assert look_at(free)[0] == ("OK", "grpc", f"port {free} is free ")
    assert look_at(0)[1] == ("OK", "xds", "installed ")
    assert look_at(8500)[0][0] == "ERROR"
    assert "port 8500 is that of HTTP, too give another one with --grpc-port" in look_at(8500)[0][2]
    with socket.create_server(("0.0.0.0", free)):  # noqa: S104 - as a worker would
        assert "Address already in use" in look_at(free)[0][2]
        assert look_at(free, running=True)[0][0] == "OK"
    monkeypatch.setitem(sys.modules, "grpc_health", None)  # as if it were not installed
    level, _, text = look_at(free)[0]
    assert (level, look_at(free)[1][0]) == ("ERROR", "OK")
    assert "grpc_health missing pip install 'fingerpost[grpc]'" in text


async def test_a_proxy_that_asks_who_calls(registry: str, tmp_path: Path) -> None:
    key = add_caller(tmp_path / "callers.toml", "ops", tenant="default", role="").key
    callers = CallersConfig(policy=str(tmp_path / "callers.toml"))
    async with Proxy(ProxyConfig(registry=registry, port=0, callers=callers)) as proxy:
        name = f"proxy 127.0.0.1:{proxy.port}"
        found = await look(registry, proxy.url)
        assert "--token-file" in found[f"ERROR {name}"].remedy
        found = await look(registry, proxy.url, credential=Credential(key))
        assert f"OK {name} back" in found


class Old:
    """A server that answers every question in the same way, in a proxy's place."""

    def __init__(self, answer: ReachAnswer | None, send: int = 0) -> None:
        self._answer = answer
        self._send = send

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await serve(self._runner, bind("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _respond(self, request: web.Request) -> web.Response:
        if self._answer is None:
            return error_response(UnknownPath("there is nothing here"))
        if self._send and request.query.get("measure"):
            back = f"http://127.0.0.1:{request.query['port']}{REACHED_PATH}{request.query['nonce']}"
            async with aiohttp.ClientSession() as session:
                await session.post(back, data=self._slowly(self._send))
        return web.Response(body=msgspec.json.encode(self._answer))

    async def _slowly(self, count: int) -> AsyncIterator[bytes]:
        """1.1 MB at once, as TCP begins, and so many bytes in 0.2 s."""
        yield bytes(1_100_000)
        for _ in range(4):
            await asyncio.sleep(0.05)
            yield bytes(count // 4)


async def test_a_proxy_of_an_older_release(registry: str) -> None:
    async with Old(None) as url:
        found = await look(registry, url)
    name = url.removeprefix("http://")
    assert "of an older release" in found[f"NOTE proxy {name} back"].message


async def test_a_slow_link_and_a_proxy_that_does_not_measure(registry: str) -> None:
    """94 Mbit/s: a port that has fallen back from 1 Gbit/s to a tenth."""
    answer = ReachAnswer(address="10.0.0.7", port=1234, reached=True, received_mbit=94.0)
    async with Old(answer, send=1_000_000) as url:
        found = await look(registry, url)
    slow = found[f"WARNING proxy {url.removeprefix('http://')} speed"]
    assert re.fullmatch(
        r"\d\d? Mbit/s from it to here, 94 Mbit/s from here to it: "
        r"a worker here gets at most \d+ images of 640 KB a second on that way",
        slow.message,
    )
    assert "ethtool" in slow.remedy
    answer = ReachAnswer(address="10.0.0.7", port=1234, reached=True)
    async with Old(answer) as url:
        found = await look(registry, url)
    name = url.removeprefix("http://")
    assert "older release" in found[f"NOTE proxy {name} speed"].message


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0.0, "OK"), (5.0, "WARNING"), (-5.0, "WARNING"), (120.0, "ERROR")]
)
async def test_clocks_that_differ(registry: str, ahead_s: float, level: str) -> None:
    now = time.time() + ahead_s
    answer = ReachAnswer(
        address="10.0.0.7", port=1234, reached=False, problem="Connection refused", answer_s=0.0,
        received_at=now, answered_at=now,
    )  # fmt: skip
    async with Old(answer) as url:
        found = await look(registry, url)
    name = url.removeprefix("http://")
    assert f"{level} proxy {name} clock" in found
    back = found[f"ERROR proxy {name} back"]
    assert back.message == "it cannot reach port 1234 of 10.0.0.7: Connection refused"
    assert "firewall" in back.remedy


@pytest.mark.consul
async def test_two_machines_of_one_name(consul_process: ConsulProcess) -> None:
    await asyncio.to_thread(consul_process.start)
    url = consul_process.url.replace("http://", "consul://")
    name = await asyncio.to_thread(socket.gethostname)
    assert "ERROR name" not in await look(url, name=name), "this one itself, or nobody"
    node = {"Node": "gpu-7", "Address": "192.0.2.7"}
    await asyncio.to_thread(put, f"{consul_process.url}/v1/catalog/register", node)
    found = await look(url)
    text = "another machine, 192.0.2.7, has the name gpu-7 in Consul"
    assert found["ERROR name"].message == text
    assert "consul force-leave gpu-7" in found["ERROR name"].remedy


def put(url: str, value: object) -> None:
    command = ["curl", "-sf", "-X", "PUT", "-d", json.dumps(value), url]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.system
def test_the_command(tmp_path: Path) -> None:
    """With a driver that is not the GPU's: the stub in the place of the library."""
    build_nvml(tmp_path)
    done = subprocess.run(
        ["env", f"LD_LIBRARY_PATH={tmp_path}", "FAKE_NVML=lost", *FINGERPOST, "doctor", "--json"],
        capture_output=True,
        text=True,
    )
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert found["gpu 0"]["level"] == "error"
    assert found["gpu 0"]["remedy"].startswith("restart the machine")
    assert found["gpu 1"]["level"] == "ok"
    assert done.returncode == 3, done.stderr
