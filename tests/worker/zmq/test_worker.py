"""A whole worker with a ZeroMQ port: registered, with CURVE, and what its settings exclude."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from fingerpost.deploy.curve import curve_key
from fingerpost.errors import ConfigurationError
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.app import bind
from fingerpost.security.curve_keys import CurveKeys, read_public_keys
from fingerpost.security.tls import TlsConfig
from fingerpost.worker import Worker, WorkerConfig
from fingerpost.worker.config import DrainConfig, ZmqConfig
from tests.support.rig import Rig, serving
from tests.support.tls_cluster import IMAGE, Flowers
from tests.support.waiting import until
from tests.support.zmq_peers import connected
from tests.worker.zmq.test_hostile import dropped, is_served


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    async with EmbeddedRegistry(port=0) as registry:
        yield registry.url


def worker(registry: str, **settings: Any) -> Worker:
    config = WorkerConfig(
        **{
            "registry": registry,
            "zmq": ZmqConfig(port=0),
            "drain": DrainConfig(lease_s=0.0),
            **settings,
        }
    )
    return Worker.for_object(Flowers(), name="flowers", config=config)


async def test_the_port_is_registered_as_a_transport(registry: str) -> None:
    async with worker(registry) as one:
        await one.register()
        ports = one.instance.ports
        assert set(ports) == {"http", "zmq"}
        assert "zmq_key" not in one.instance.meta
        async with connected(ports["zmq"]) as dealer:
            assert (await dealer.open("flowers"))["type"] == "opened"
            assert (await dealer.ask(IMAGE))["model"] == "flowers"
            await one.leave()
            assert (await dealer.take())[1]["reason"] == "draining"
            assert (await dealer.open("flowers"))["error"]["code"] == "draining"


async def test_a_port_in_use_is_named(registry: str) -> None:
    with bind("127.0.0.1", 0) as other:
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1:{port} for ZeroMQ.*--zmq-port"
        ):
            async with worker(registry, zmq=ZmqConfig(port=port)):
                pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZmqConfig(port=70_000), "zmq.port 70000"),
        (lambda: ZmqConfig(key=Path("k")), "give --zmq-port too"),
        (lambda: ZmqConfig(port=1, clients=Path("k")), "give --zmq-key too"),
        (lambda: WorkerConfig(port=8500, zmq=ZmqConfig(port=8500)), "give each its own"),
        (
            lambda: WorkerConfig(
                tls=TlsConfig(cert="c", key="k", client_ca="ca"), zmq=ZmqConfig(port=0)
            ),
            "--zmq-clients",
        ),
    ],
)
def test_settings_that_exclude_each_other(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def pair(path: Path) -> CurveKeys:
    curve_key(path)
    return CurveKeys.read(path)


async def test_the_public_key_is_registered(registry: str, tmp_path: Path) -> None:
    keys = pair(tmp_path / "worker.key")
    config = ZmqConfig(port=0, key=tmp_path / "worker.key")
    async with worker(registry, zmq=config) as one:
        assert one.instance.meta["zmq_key"] == keys.public.decode()
        assert keys.secret.decode() not in repr(keys)


def keys_of(client: CurveKeys, server: bytes) -> dict[str, bytes]:
    return {
        "curve_publickey": client.public,
        "curve_secretkey": client.secret,
        "curve_serverkey": server,
    }


async def never_opens(rig: Rig, reason: str, **options: bytes) -> None:
    """A client that is not let in: its first message comes to nothing."""
    streams = len(rig.service.admission._streams)
    refused = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    refused |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED
    async with connected(rig.zmq_port, reconnect_ivl=-1, **options) as dealer:
        monitor = dealer.socket.get_monitor_socket(refused)
        await dealer.order("open", model="colours")
        assert await monitor.poll(10_000)
        dealer.socket.disable_monitor()
    if reason:
        await until(lambda: dropped(rig, reason))
    assert len(rig.service.admission._streams) <= streams


async def test_only_clients_with_a_key_are_let_in(tmp_path: Path) -> None:
    server, known, other = (pair(tmp_path / name) for name in ("server", "known", "other"))
    clients = tmp_path / "clients.txt"
    clients.write_text(f"# who may\n{known.public.decode()} camera 7\n")
    config = ZmqConfig(port=0, key=tmp_path / "server", clients=clients)
    async with serving(zmq=config) as rig:
        async with connected(rig.zmq_port, **keys_of(known, server.public)) as dealer:
            await dealer.open()
            await is_served(dealer)
            await never_opens(rig, "key", **keys_of(other, server.public))
            await never_opens(rig, "", **keys_of(known, other.public))  # another worker's key
            await never_opens(rig, "")  # in clear
            await is_served(dealer)
        clients.write_text("not a key\n")
        async with connected(rig.zmq_port, **keys_of(known, server.public)) as dealer:
            await dealer.open()
        with pytest.raises(ConfigurationError, match="line 1, is not a public key"):
            read_public_keys(clients)
        clients.write_text(other.public.decode())

        async def is_let_in() -> bool:
            async with connected(rig.zmq_port, **keys_of(other, server.public)) as dealer:
                await dealer.order("open", model="colours")
                return bool(await dealer.socket.poll(500))

        await until(is_let_in)  # the file is looked at twice a second
        await never_opens(rig, "key", **keys_of(known, server.public))


async def test_a_key_that_others_can_read_is_refused(registry: str, tmp_path: Path) -> None:
    path = tmp_path / "worker.key"
    curve_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        worker(registry, zmq=ZmqConfig(port=0, key=path))
    path.write_text("something else")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="fingerpost keys curve --key FILE"):
        worker(registry, zmq=ZmqConfig(port=0, key=path))


@pytest.mark.shell
def test_nothing_of_zeromq_is_imported_without_the_option() -> None:
    code = (
        "import sys, fingerpost.worker.worker, fingerpost.worker.service, fingerpost.client\n"
        "print([each for each in sys.modules if each.partition('.')[0] == 'zmq'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
