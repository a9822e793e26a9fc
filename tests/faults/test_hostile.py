"""A worker and a proxy that answer whatever an attacker likes, while clients send images."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import msgspec
import psutil
import pytest

from fingerpost.client import Client
from fingerpost.client.wire import INDEX_HEADER
from fingerpost.errors import FingerpostError
from fingerpost.registry import open_registry
from tests.faults.field import Field, http
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.support.colours import encoded
from tests.support.hostile import ENDLESS, FIXED, reply, serving_hostile
from tests.support.processes import get_json

_ANSWERS = {**{name: (first, b"") for name, first in FIXED.items()}, **ENDLESS}
_EACH_S = 0.5
_MB = 1e6


@pytest.mark.timeout(300)
async def test_a_hostile_worker(field: Field, table: Table) -> None:
    row = table.row("21a", "a hostile worker under load")
    row.done = (
        f"A fourth worker was registered, by raw HTTP under load, {len(_ANSWERS)} times, each with "
        "another id and another hostile answer to every request: redirects, endless heads and "
        "bodies, compressed, nested and invalid JSON, numbers out of range, no predictions"
    )
    await field.ready(3)
    url = f"{field.registry}/v1/agent/service"
    known = await http("GET", f"{url}/{field.workers[0].id}")
    async with (
        serving_hostile(b"") as hostile,
        aclosing(open_registry(field.registry)) as registry,
        field.traffic(
            {"by the proxy": Client(field.proxy), "by a watch": Client(registry=registry)}
        ) as load,
    ):
        proxy = _process_at(field.proxy)
        before_mb = proxy.memory_info().rss / _MB, psutil.Process().memory_info().rss / _MB
        entry = {
            "Name": SERVICE,
            "Address": "127.0.0.1",
            "Port": hostile.port,
            "Tags": known["Tags"],
            "Meta": known["Meta"],
        }
        silent_s = 0.0
        for number, (first, again) in enumerate(_ANSWERS.values()):
            hostile.answer(first, again)
            # Another id each time: clients would leave out one that has failed before.
            await http("PUT", f"{url}/register", {**entry, "ID": f"hostile-{number}"})
            try:
                await asyncio.sleep(_EACH_S)
                silent_s = max(silent_s, await _oldest_report_s(field))
            finally:
                await http("PUT", f"{url}/deregister/hostile-{number}")
        grown_mb = (
            proxy.memory_info().rss / _MB - before_mb[0],
            psutil.Process().memory_info().rss / _MB - before_mb[1],
        )
        await field.known(field.proxy)
    row.load(load)
    row.bounded(load)
    tried = [each for each in load.attempts if each.address == hostile.address]
    row.at_most("the proxy's memory grew by", grown_mb[0], 50, " MB")
    row.at_most("the clients' memory grew by", grown_mb[1], 100, " MB")
    row.at_most("an honest worker was probed again after", silent_s, 5, " s")
    row.note(f"{len(tried)} images were sent to it, {len(hostile.requests)} requests in all")
    assert len(tried) > len(_ANSWERS) / 2, "it was tried again and again"
    row.check()


@pytest.mark.timeout(180)
async def test_a_hostile_proxy(field: Field, table: Table) -> None:
    row = table.row("21b", "a hostile proxy under load")
    row.done = (
        f"Under load, a new client for each of {len(_ANSWERS)} hostile ways to answer was given a "
        "proxy that answered so, before an honest one, and sent ten images; then a proxy that "
        "named addresses that no worker can have beside those of the workers"
    )
    await field.ready(3)
    requests, errors, refused, stale = 0, [], 0, 0
    answer = await asyncio.to_thread(get_json, f"{field.proxy}/v1/resolve/{SERVICE}")
    listed = answer["instances"]
    bad = [
        {**listed[0], "id": f"bad-{number}", "host": host}
        for number, host in enumerate(("169.254.169.254", "224.0.0.1", "0.1.2.3", "no host!"))
    ]
    lookup = {**answer, "instances": [*bad, *listed], "index": 1}
    named = reply(msgspec.json.encode(lookup), "200 OK", f"{INDEX_HEADER}: 1")
    before_mb = psutil.Process().memory_info().rss / _MB
    async with serving_hostile(b"") as hostile, field.traffic() as load:
        for first, again in (*_ANSWERS.values(), (named, b"")):
            hostile.answer(first, again)
            async with Client(f"http://{hostile.address}", field.proxy) as client:
                for _ in range(10):
                    requests += 1
                    try:
                        result = await client.classify(encoded("red"), SERVICE)
                        if result.label != "red":
                            errors.append(f"{result.label} for red")
                    except FingerpostError as error:
                        errors.append(repr(error))
                refused += sum(client.stats.rejected_entries.values())
                stale += client.stats.stale_addresses
        grown_mb = psutil.Process().memory_info().rss / _MB - before_mb
    row.load(load)
    row.count(requests, errors)
    row.at_most("attempts at addresses that no worker can have", stale, 0)
    row.at_most("such addresses that were not counted", len(bad) - refused, 0)
    row.at_most("the clients' memory grew by", grown_mb, 100, " MB")
    row.note(f"{len(hostile.requests)} requests to it")
    row.check()


async def _oldest_report_s(field: Field) -> float:
    """How long it takes until the proxy has a new report of every honest worker, in seconds."""

    async def sequence() -> dict[str, int]:
        answer = await asyncio.to_thread(get_json, f"{field.proxy}/v1/resolve/{SERVICE}")
        return {
            each["id"]: each["load"]["seq"]
            for each in answer["instances"]
            if each["id"] in field.ids and each["load"]
        }

    began = time.monotonic()
    before = await sequence()
    while time.monotonic() < began + 20:
        now = await sequence()
        if now.keys() >= field.ids and all(now[id_] > before.get(id_, -1) for id_ in field.ids):
            break
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def _process_at(url: str) -> psutil.Process:
    port = int(url.rsplit(":", 1)[1])
    found = [
        each.pid
        for each in psutil.net_connections("tcp")
        if each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN and each.pid
    ]
    return psutil.Process(found[0])
