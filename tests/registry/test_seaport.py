"""Workers that registered with seaport: a hub that speaks its protocol, as the real one does.

`tests/foreign/test_seaport.py` has the real hub and a real client of seaport.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError, RegistryUnreachable
from fingerpost.registry import WatchConfig, open_registry
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.foreign import foreign_instance
from fingerpost.registry.seaport import SeaportRegistry


class Hub:
    """The messages of seaport 2.0.9, from a real socket."""

    def __init__(self) -> None:
        self.metas: dict[str, object] = {}
        self.writers: list[asyncio.StreamWriter] = []
        self.heard: list[bytes] = []
        self.server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for each in self.writers:
            each.close()
        self.writers = []
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self._send(writer, ["helo", "127.0.0.1"])
        for id_, meta in self.metas.items():
            self._send(writer, ["register", id_, meta])
        self._send(writer, ["synced"])
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.heard.append(line)
        writer.close()

    def _send(self, writer: asyncio.StreamWriter, message: object) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    def say(self, *message: object) -> None:
        for each in self.writers:
            self._send(each, list(message))


@pytest.fixture
async def hub():
    made = Hub()
    await made.start()
    yield made
    await made.stop()


def meta(port: object = 9000, **more: object):
    return {"role": "flowers", "host": "10.0.0.7", "port": port, "id": "A1"} | more


@pytest.fixture
async def registry(hub):
    made = SeaportRegistry(
        f"seaport://127.0.0.1:{hub.port}", watch_config=WatchConfig(backoff_cap_s=0.2)
    )
    yield made
    await made.aclose()


async def test_a_role_is_a_service(hub, registry):
    hub.metas = {
        "A1": meta(version="2.1.0", protocol="v2", size="8x8", pid=7),
        "B2": meta(9001, role="Bad Role"),
        "C3": meta(9002, role="cats", host="::ffff:10.0.0.8"),
    }
    assert (await registry.catalog()).services == ("cats", "flowers")
    (found,) = (await registry.list("flowers")).instances
    assert (found.id, found.address) == ("A1-10.0.0.7-9000", "10.0.0.7:9000")
    assert dict(found.meta) == {"protocol": "v2", "size": "8x8", "version": "2"}
    assert found.models[0].versions == ("2",)
    (cat,) = (await registry.list("cats")).instances
    assert (cat.host, cat.protocol, cat.models[0].versions) == ("10.0.0.8", "form", ())
    assert not (await registry.list("dogs")).known
    await until(lambda: hub.heard == [b'["heartbeat"]\n'], within_s=2)


async def test_a_watch_sees_changes_and_an_outage_keeps_the_list(hub, registry):
    watch = registry.watch("flowers")
    assert (await watch.ready(5)).instances == ()
    hub.metas["A1"] = meta()
    hub.say("register", "A1", hub.metas["A1"])
    await until(lambda: len(watch.view.instances) == 1, within_s=2)
    hub.say("heartbeat")
    hub.say("register", "B2", meta(9001, id="B2"))
    await until(lambda: len(watch.view.instances) == 2, within_s=2)
    hub.say("free", "B2")
    await until(lambda: len(watch.view.instances) == 1, within_s=2)
    await hub.stop()
    await until(lambda: watch.error is not None, within_s=5)
    assert len(watch.view.instances) == 1
    hub.metas["C3"] = meta(9002, id="C3")
    await hub.start()
    await until(lambda: len(watch.view.instances) == 2, within_s=10)
    assert watch.error is None


async def test_what_is_not_valid_is_left_out_by_itself(hub, registry):
    hub.metas = {
        "A1": meta(),
        "B2": meta("9001"),
        "C3": meta(70000),
        "D4": meta(9003, host="169.254.169.254"),
        "E5": meta(9004, protocol="soap"),
        "F6": 7,
        "../x": meta(9005),
    }
    view = await registry.list("flowers")
    assert [each.ports["http"] for each in view.instances] == [9000]
    assert len(view.rejected) == 5
    assert registry.rejected_entries.total == 5


@pytest.mark.parametrize("line", [b"hello\n", b"7\n", b"[]\n", b"[" * 70_000 + b"\n"])
async def test_another_server_is_said(line):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    registry = SeaportRegistry(f"seaport://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(RegistryUnreachable, match=r"not a message of seaport|more than 65536"):
        await registry.list("flowers")
    await registry.aclose()
    server.close()


async def test_it_is_only_read():
    registry = open_registry("seaport://127.0.0.1:9")
    assert isinstance(registry, SeaportRegistry)
    worker = foreign_instance("flowers", host="h", port=1)
    for call in (
        registry.register(worker),
        registry.set_draining("a-1", "x"),
        registry.publish("callers", b"{}"),
    ):
        with pytest.raises(ConfigurationError, match="is only read"):
            await call
    with pytest.raises(RegistryUnreachable, match="seaport://127.0.0.1:9"):
        await registry.list("flowers")
    await registry.aclose()


async def test_foreign_services_are_named_where_that_is_asked(hub):
    hub.metas = {"A1": meta()}
    policy = AddressPolicy(foreign_services=frozenset({"cats"}))
    registry = SeaportRegistry(f"seaport://127.0.0.1:{hub.port}", address_policy=policy)
    view = await registry.list("flowers")
    assert view.instances == ()
    assert "--foreign-service flowers" in view.rejected[0][1]
    await registry.aclose()


@pytest.mark.parametrize("url", ["seaport://", "seaport://h", "seaport://h:0", "seaport://h:1/x"])
async def test_a_url_that_is_not_valid(url):
    with pytest.raises(ConfigurationError, match="expected seaport://HOST:PORT"):
        SeaportRegistry(url)
