"""A worker's entries follow what it serves, and a registry in trouble is asked again."""

from __future__ import annotations

import pytest

from fingerpost.registry import Instance, ModelInfo, open_registry
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.worker.registrations import Registrations


def instance(name: str, *versions: str) -> Instance:
    return Instance(
        id=f"{name}-1",
        service=name,
        host="127.0.0.1",
        ports={"http": 9},
        models=(ModelInfo(name=name, versions=versions),),
    )


@pytest.mark.usefixtures("no_task_left")
async def test_what_could_not_be_told_is_told_by_the_next_sync(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await EmbeddedRegistry(port=0).start()
    registry = open_registry(server.url)
    wanted = [instance("flowers", "1")]
    registrations = Registrations(registry, lambda: tuple(wanted), healthy=bool, lease_s=0.0)
    await registrations.sync()
    assert (await registry.catalog()).services == (), "not before it is registered"
    await registrations.register(5.0)
    assert (await registry.list("flowers")).instances == (wanted[0],)

    await server.aclose()
    wanted[:] = [instance("flowers", "2"), instance("birds", "1")]
    await registrations.sync()
    await registrations.sync()
    told = [each for each in caplog.messages if "does not list everything that is served" in each]
    assert len(told) == 1, "once is enough"
    server = await EmbeddedRegistry(port=server.port).start()
    await registrations.sync()
    assert (await registry.list("birds")).instances == (wanted[1],)
    await registrations.drain("leaving")
    assert (await registry.list("birds")).instances == ()
    wanted.append(instance("cats", "1"))
    await registrations.sync()
    assert not (await registry.list("cats")).known, "nothing is added while it leaves"
    await registrations.deregister()
    assert (await registry.catalog()).services == ()
    await registry.aclose()
    await server.aclose()
