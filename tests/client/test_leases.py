"""A cluster that wants leases, of real processes and of servers in this one."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest
from tests.proxy.test_leases import IMAGE, place
from tests.support.leases import lease, signed
from tests.support.optional import not_none

from fingerpost.client import Client, ClientConfig, SyncClient
from fingerpost.errors import (
    ConfigurationError,
    LeaseExpired,
    LeaseInvalid,
    LeaseRequired,
    LeaseWrongService,
)
from fingerpost.proxy import Proxy
from fingerpost.security.leases.config import LeaseConfig

pytestmark = pytest.mark.shell


async def test_a_client_carries_the_lease_of_its_proxy(tmp_path: Path) -> None:
    async with place(tmp_path) as here, Client(here.proxy.url) as client:
        assert (await client.classify(IMAGE, "colours")).label == "red"
        results = [each async for each in client.stream([IMAGE] * 20, "colours")]
        assert [each.error for each in results] == [None] * 20
        assert client.stats.retries == {}

        def by_the_sync_client() -> str:
            with SyncClient(here.proxy.url) as sync:
                return sync.classify(IMAGE, "colours").label

        assert await asyncio.to_thread(by_the_sync_client) == "red"


async def test_the_relay_s_client_needs_none(tmp_path: Path) -> None:
    config = ClientConfig(relay=True)
    async with place(tmp_path, relay=True) as here, Client(here.proxy.url, config=config) as client:
        assert (await client.classify(IMAGE, "colours")).label == "red"


async def test_it_is_renewed_before_it_ends(tmp_path: Path) -> None:
    signing = LeaseConfig(life_s=10.0)
    async with place(tmp_path, signing=signing) as here, Client(here.proxy.url) as client:
        await client.classify(IMAGE, "colours")
        verifier = not_none(here.rig.service._leases)._verifier
        verifier._rules = dataclasses.replace(verifier._rules, skew_s=0.0)
        end = time.monotonic() + 14
        while time.monotonic() < end:
            assert (await client.classify(IMAGE, "colours")).label == "red"
            await asyncio.sleep(0.05)
        assert client.stats.retries == {}
        assert len(verifier) >= 2


async def test_in_an_outage_it_goes_on_until_the_lease_ends_and_comes_back_by_itself(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here:
        verifier = not_none(here.rig.service._leases)._verifier
        clock = verifier._clock
        async with Client(here.proxy.url) as client:
            await client.classify(IMAGE, "colours")
            port, config = here.proxy.port, here.proxy._config
            await here.proxy.__aexit__()
            await here.embedded.aclose()
            verifier._clock = lambda: clock() + 100
            assert (await client.classify(IMAGE, "colours")).label == "red"
            verifier._clock = lambda: clock() + 331
            for _ in range(3):
                with pytest.raises(LeaseExpired, match="ended"):
                    await client.classify(IMAGE, "colours")
            verifier._clock = clock
            await here.embedded.start()
            again = Proxy(dataclasses.replace(config, port=port))
            async with again:
                async with asyncio.timeout(20):
                    while True:
                        try:
                            await client.classify(IMAGE, "colours")
                            break
                        except LeaseExpired:
                            await asyncio.sleep(0.1)


async def test_a_registry_gives_no_leases_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        url = here.embedded.url
        async with Client(registry=url) as client:
            with pytest.raises(LeaseRequired, match="use a proxy's URL, or give a lease"):
                await client.classify(IMAGE, "colours")
        async with Client(registry=url, config=ClientConfig(lease=lease())) as client:
            assert (await client.classify(IMAGE, "colours")).label == "red"
        async with Client(registry=url, config=ClientConfig(lease=lease("flowers"))) as client:
            with pytest.raises(LeaseWrongService):
                await client.classify(IMAGE, "colours")
        file = tmp_path / "lease"
        file.write_text(signed(iss="another") + "\n")
        async with Client(registry=url, config=ClientConfig(lease_file=str(file))) as client:
            with pytest.raises(LeaseInvalid):
                await client.classify(IMAGE, "colours")
            file.write_text("not a lease!")
            await asyncio.sleep(1.1)
            with pytest.raises(LeaseInvalid):
                await client.classify(IMAGE, "colours")
            file.write_text(lease() + "\n")
            await asyncio.sleep(1.1)
            assert (await client.classify(IMAGE, "colours")).label == "red"


async def test_what_is_not_a_lease_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fingerpost lease") as raised:
        ClientConfig(lease="secret\r\nX: y")
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(ClientConfig(lease="secret"))
    with pytest.raises(ConfigurationError, match="use either"):
        ClientConfig(lease="a", lease_file="b")
    async with Client(config=ClientConfig(lease_file=str(tmp_path / "none"))) as client:
        with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
            await client.classify(IMAGE, "colours")
