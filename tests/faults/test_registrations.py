"""What somebody writes into the registry by hand: flapping, and entries that must not be used."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.error
import urllib.request
from contextlib import aclosing
from typing import Any

import pytest

from fingerpost.client import Client
from fingerpost.registry import WatchConfig, open_registry
from tests.faults.field import Field, http
from tests.faults.load import SERVICE
from tests.faults.observed_lists import AtProxy, InWatch
from tests.faults.table import Table
from tests.faults.tap import Tap
from tests.support.waiting import until

_TOGGLES_PER_S = 10
_FLAPPING_S = 10.0

# What is wrong, and the fields of a registration that make it so.
_HOSTILE: dict[str, dict[str, Any]] = {
    "metadata": {"Address": "169.254.169.254", "Port": 80},
    "link-local": {"Address": "169.254.7.7", "Port": 8000},
    "link-local-6": {"Address": "fe80::1", "Port": 8000},
    "mapped": {"Address": "::ffff:169.254.169.254", "Port": 80},
    "multicast": {"Address": "224.0.0.1", "Port": 8000},
    "unspecified": {"Address": "0.1.2.3", "Port": 8000},
    "no-host": {"Address": "not a host!", "Port": 8000},
    "a-path": {"Address": "127.0.0.1/../x", "Port": 8000},
    "port-70000": {"Address": "127.0.0.1", "Port": 70000},
    "port-0": {"Address": "127.0.0.1", "Port": 0},
    "other-port": {"Address": "127.0.0.1", "Port": 8000, "Meta": {"fingerpost-port-x": "-1"}},
    "models": {"Address": "127.0.0.1", "Port": 8000, "Meta": {"fingerpost-models-0": "[[["}},
}
_HOSTILE_NAMES = ("../../kv/secret", "colours?dc=x", "two words", "a" * 300)


@pytest.mark.timeout(180)
async def test_an_entry_flaps(field: Field, table: Table) -> None:
    row = table.row("9", f"registry flapping {_TOGGLES_PER_S} times a second")
    await field.ready(3)
    async with aclosing(open_registry(field.registry)) as registry, Tap(field.registry) as tap:
        watch = registry.watch(SERVICE)
        proxy = await field.start_proxy(tap.url)
        await field.known(proxy)
        clients = {"by the proxy": Client(proxy), "by a watch": Client(registry=registry)}
        async with field.traffic(clients) as load:
            await asyncio.sleep(3.0)  # the token buckets fill up
            path = f"/v1/health/service/{SERVICE}"
            began, polls, changes = time.monotonic(), watch.polls, watch.changes
            toggles = await _flap(field, field.workers[0].id)
            took_s = time.monotonic() - began
            polls = watch.polls - polls
            changes = watch.changes - changes
            asked = tap.count(path, began)
            await field.known(proxy)
            mine = InWatch(watch)
            await until(lambda: mine.now == field.ids, "the watch has all three again")
    config = WatchConfig()
    bound = config.burst + config.polls_per_s * took_s + 1
    row.done = (
        f"Maintenance mode of one of three workers toggled {toggles} times in {took_s:.1f} s under "
        "load, by raw HTTP"
    )
    row.load(load)
    row.at_most("polls of a client's watch", polls, bound)
    row.at_most("changes that it published", changes, bound)
    row.at_most("polls of the proxy's watch", asked, bound)
    assert toggles >= 0.8 * _TOGGLES_PER_S * _FLAPPING_S, f"only {toggles} toggles"
    row.check()


@pytest.mark.timeout(180)
async def test_hostile_entries(field: Field, table: Table) -> None:
    row = table.row("10", "hostile addresses and names registered")
    row.done = (
        f"{len(_HOSTILE)} entries of the service with bad addresses, ports and metadata, and "
        f"{len(_HOSTILE_NAMES)} services with hostile names, by raw HTTP under load"
    )
    await field.ready(3)
    url = f"{field.registry}/v1/agent/service"
    known = await http("GET", f"{url}/{field.workers[0].id}")
    async with (
        aclosing(open_registry(field.registry)) as registry,
        AtProxy(field.proxy) as proxy,
        field.traffic(
            {"by the proxy": Client(field.proxy), "by a watch": Client(registry=registry)}
        ) as load,
    ):
        mine = InWatch(registry.watch(SERVICE))
        refused = registry.rejected_entries.total
        counted = await _counted(field.proxy)
        written: list[str] = []
        not_taken: list[str] = []
        try:
            for name, fields in _HOSTILE.items():
                entry = _entry(known, f"hostile-{name}") | fields
                entry["Meta"] = known["Meta"] | fields.get("Meta", {})
                await _write(url, entry, written, not_taken)
            for number, name in enumerate(_HOSTILE_NAMES):
                entry = _entry(known, f"hostile-service-{number}") | {"Name": name}
                await _write(url, entry, written, not_taken)
            # An honest entry last: what was written before it has been seen once it is handed out.
            honest = _entry(known, "honest") | {
                "Address": field.workers[0].address.split(":")[0],
                "Port": int(field.workers[0].address.split(":")[1]),
            }
            await http("PUT", f"{url}/register", honest)
            written.append("honest")
            for observed in (mine, proxy):
                await observed.until(lambda ids: "honest" in ids, "the honest entry is seen")
            await asyncio.sleep(2.0)
            refused = registry.rejected_entries.total - refused
            counted = await _counted(field.proxy) - counted
            services = await http("GET", f"{field.proxy}/v1/services")
        finally:
            for each in written:
                await http("PUT", f"{url}/deregister/{each}")
        await mine.until(lambda ids: ids == field.ids, "only the workers are left")
        await field.known(field.proxy)
    row.load(load)
    hostile = {each for each in written if each.startswith("hostile")}
    handed_out = {each for each in hostile if mine.ever(each) or proxy.ever(each)}
    strangers = {each.address for each in load.attempts} - field.addresses
    listed = {each["name"] for each in services["services"]} & set(_HOSTILE_NAMES)
    row.at_most("returned to clients", len(handed_out), 0)
    row.at_most("addresses that a client tried", len(strangers), 0)
    row.at_most("hostile services listed", len(listed), 0)
    entries = len(hostile & {f"hostile-{name}" for name in _HOSTILE})
    row.at_most("not counted by a client's watch", entries - refused, 0)
    row.at_most("not counted by the proxy", entries - counted, 0)
    reasons = {str(reason): count for reason, count in registry.rejected_entries.by_reason.items()}
    row.note(f"Rejected: {', '.join(f'{count} {reason}' for reason, count in reasons.items())}")
    if not_taken:
        row.note(f"Rejected by Consul itself: {', '.join(not_taken)}")
    if handed_out:
        row.note(f"Returned to clients: {', '.join(sorted(handed_out))}")
    row.check()


async def _flap(field: Field, instance_id: str) -> int:
    """Toggle the maintenance mode at the rate wanted; it ends switched off."""
    url = f"{field.registry}/v1/agent/service/maintenance/{instance_id}?enable="
    began = time.monotonic()
    toggles = 0
    try:
        while time.monotonic() < began + _FLAPPING_S:
            await http("PUT", f"{url}{'true' if toggles % 2 == 0 else 'false'}")
            toggles += 1
            await asyncio.sleep(max(0.0, began + toggles / _TOGGLES_PER_S - time.monotonic()))
    finally:
        await http("PUT", f"{url}false")
    return toggles


async def _write(url: str, entry: dict[str, Any], written: list[str], not_taken: list[str]) -> None:
    """Register an entry; note on either list what came of it."""
    try:
        await http("PUT", f"{url}/register", entry)
    except urllib.error.HTTPError as error:
        error.close()
        not_taken.append(entry["ID"])
    else:
        written.append(entry["ID"])


def _entry(known: dict[str, Any], entry_id: str) -> dict[str, Any]:
    """A registration like that of a real worker, without a check."""
    return {
        "ID": entry_id,
        "Name": known["Service"],
        "Tags": known["Tags"],
        "Meta": known["Meta"],
        "Address": "127.0.0.1",
        "Port": 8000,
    }


async def _counted(proxy: str) -> float:
    """The number of entries that a proxy rejected, by its metrics."""

    def get() -> str:
        with urllib.request.urlopen(f"{proxy}/metrics", timeout=5) as answer:  # noqa: S310
            return answer.read().decode()

    text = await asyncio.to_thread(get)
    found = re.findall(
        r"^fingerpost_proxy_rejected_entries_total\{[^}]*\} (\S+)$", text, re.MULTILINE
    )
    return sum(map(float, found))
