"""Snapshots on disk: written rarely and whole, read with suspicion."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.errors import InvalidName, RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo, Snapshot, open_registry
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.entry_signature import sign_entry
from fingerpost.registry.watching.signatures import open_signatures
from fingerpost.registry.watching.snapshot_store import SnapshotStore
from fingerpost.security.keys import SigningKey

MODELS = (ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"}),)


def instance(name="a", host="10.0.0.1", **fields):
    return Instance(
        id=name,
        service=fields.pop("service", "flowers"),
        host=host,
        ports={"http": 8501, "rpc": 9001},
        models=MODELS,
        boot_id=2**53 - 1,
        zone="rack 7",
        meta={"device": "gpu:0"},
        **fields,
    )


def snapshot(*instances, service="flowers", taken_at=0.0, **fields):
    return Snapshot(
        service=service,
        instances=instances or (instance(service=service),),
        known=True,
        index=fields.pop("index", 42),
        taken_at=taken_at,
        **fields,
    )


async def write(folder, *snapshots, **arguments):
    store = SnapshotStore(folder, **arguments)
    for each in snapshots:
        store.put(each)
    await store.aclose()
    return store


async def test_a_snapshot_survives_the_process(tmp_path):
    folder = tmp_path / "not" / "yet" / "there"
    now = time.monotonic()
    await write(folder, snapshot(instance("a"), instance("b"), taken_at=now, retained=("b",)))
    read = await SnapshotStore(folder).load("flowers")
    assert read is not None
    assert read.instances == (instance("a"), instance("b"))
    assert (read.index, read.known, read.from_disk, read.retained) == (42, True, True, ())
    assert [path.name for path in folder.iterdir()] == ["flowers.json"]


async def test_the_age_counts_across_the_restart(tmp_path):
    await write(tmp_path, snapshot(taken_at=70.0), clock=lambda: 100.0, wall=lambda: 5000.0)
    later = SnapshotStore(tmp_path, clock=lambda: 7.0, wall=lambda: 5600.0)
    assert not_none(await later.load("flowers")).age_s(7.0) == pytest.approx(630.0)


async def test_a_wall_clock_set_back_makes_no_negative_age(tmp_path):
    await write(tmp_path, snapshot(taken_at=100.0), clock=lambda: 100.0, wall=lambda: 5000.0)
    earlier = SnapshotStore(tmp_path, clock=lambda: 7.0, wall=lambda: 4000.0)
    assert not_none(await earlier.load("flowers")).taken_at == 7.0


async def test_of_many_in_a_second_the_newest_is_written(tmp_path):
    store = SnapshotStore(tmp_path, pause_s=60.0)
    store.put(snapshot(index=1))
    while store.writes < 1:
        await asyncio.sleep(0)
    for index in range(2, 1000):
        store.put(snapshot(index=index))
    await asyncio.sleep(0)
    assert store.writes == 1, "the pause has not passed"
    await store.aclose()
    assert store.writes == 2
    assert not_none(await store.load("flowers")).index == 999


async def test_what_waits_is_written_when_its_pause_has_passed(tmp_path):
    store = SnapshotStore(tmp_path, pause_s=0.05)
    store.put(snapshot(index=1))
    await until(lambda: store.writes == 1)
    store.put(snapshot(index=2))
    await until(lambda: store.writes == 2)
    await store.aclose()
    assert not_none(await store.load("flowers")).index == 2


async def test_each_service_has_its_own_file_and_pace(tmp_path):
    store = SnapshotStore(tmp_path, pause_s=60.0)
    store.put(snapshot())
    store.put(snapshot(service="cats"))
    await until(lambda: store.writes == 2)
    await store.aclose()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats.json", "flowers.json"]


async def test_neither_nobody_nor_what_came_from_disk_is_written(tmp_path):
    empty = Snapshot(service="flowers", instances=(), known=True, index=1, taken_at=0.0)
    store = await write(tmp_path, empty, snapshot(from_disk=True))
    assert store.writes == 0
    assert list(tmp_path.iterdir()) == []


async def test_nothing_stored_is_nothing(tmp_path):
    assert await SnapshotStore(tmp_path).load("flowers") is None
    assert await SnapshotStore(tmp_path / "nowhere").load("flowers") is None


GOOD = {"format": 1, "service": "flowers", "taken_unix_s": 1.0, "index": 1, "instances": []}
DAMAGED = {
    "empty": b"",
    "half": b'{"format": 1, "serv',
    "no object": b"[]",
    "no UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "another format": json.dumps(GOOD | {"format": 2}).encode(),
    "another service": json.dumps(GOOD | {"service": "cats"}).encode(),
    "no instances": json.dumps({"format": 1, "service": "flowers"}).encode(),
    "huge": b" " * (16 * 1024 * 1024 + 1),
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_file_is_named_and_passed_over(tmp_path, caplog, body):
    (tmp_path / "flowers.json").write_bytes(body)
    assert await SnapshotStore(tmp_path).load("flowers") is None
    assert "flowers.json" in caplog.text


async def test_a_folder_in_the_files_place_is_passed_over(tmp_path, caplog):
    (tmp_path / "flowers.json").mkdir()
    assert await SnapshotStore(tmp_path).load("flowers") is None
    assert "flowers.json" in caplog.text


async def test_an_instance_that_makes_no_sense_is_passed_over(tmp_path, caplog):
    good = json.loads((await _encoded(tmp_path))["flowers.json"])
    (entry,) = good["instances"]
    good["instances"] += [
        entry | {"id": "b", "host": "not a host!"},
        entry | {"id": "../c"},
        entry | {"id": "d", "service": "cats"},
        entry | {"id": "e", "host": "169.254.169.254"},
        entry | {"id": "f", "ports": {"http": 70000}},
        7,
    ]
    (tmp_path / "flowers.json").write_text(json.dumps(good))
    read = await SnapshotStore(tmp_path, address_policy=AddressPolicy()).load("flowers")
    assert [each.id for each in not_none(read).instances] == ["a"]
    assert caplog.text.count("is ignored") == 6


async def _encoded(folder):
    await write(folder, snapshot())
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path, caplog):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    store = SnapshotStore(in_the_way / "below", pause_s=0.0)
    for index in (1, 2, 3):
        store.put(snapshot(index=index))
        while store.errors < index:
            await asyncio.sleep(0)
    await store.aclose()
    assert caplog.text.count("cannot be written") == 1


async def test_the_services_are_those_with_a_snapshot_to_be_used(tmp_path, caplog):
    assert await SnapshotStore(tmp_path).catalog() is None
    assert await SnapshotStore(tmp_path / "nowhere").catalog() is None
    clocks: dict[str, Any] = {"clock": lambda: 100.0, "wall": lambda: 5000.0}
    await write(
        tmp_path, snapshot(taken_at=40.0), snapshot(service="cats", taken_at=70.0), **clocks
    )
    for name, body in DAMAGED.items():
        (tmp_path / f"damaged-{name.replace(' ', '-')}.json").write_bytes(body)
    (tmp_path / "Not A Service.json").write_text("{}")
    (tmp_path / ".flowers.json.17.42").write_text("{")
    (tmp_path / "folder.json").mkdir()
    catalog = await SnapshotStore(tmp_path, **clocks).catalog()
    assert catalog is not None
    assert catalog.services == ("cats", "flowers")
    assert catalog.from_disk
    assert catalog.taken_at == pytest.approx(70.0)
    assert "Not A Service" not in caplog.text


async def test_a_folder_that_cannot_be_listed_has_no_services(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert await SnapshotStore(tmp_path / "file").catalog() is None


async def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    with pytest.raises(InvalidName):
        await SnapshotStore(tmp_path).load("../flowers")


async def test_it_can_be_closed_twice_and_used_again(tmp_path):
    store = await write(tmp_path, snapshot(index=1))
    await store.aclose()
    store.put(snapshot(index=2))
    await store.aclose()
    assert not_none(await store.load("flowers")).index == 2


async def test_put_after_a_close_without_a_use_starts_nothing(tmp_path):
    store = SnapshotStore(tmp_path)
    await store.aclose()
    assert store.writes == 0


@pytest.mark.parametrize("scheme", ["consul", "zookeeper"])
async def test_the_list_of_services_is_that_on_disk_while_a_registry_is_away(
    tmp_path, free_port, scheme
):
    await write(tmp_path, snapshot(), snapshot(service="cats"))
    options = RegistryConfig(snapshot_folder=str(tmp_path))
    registry = open_registry(f"{scheme}://127.0.0.1:{free_port}", options)
    try:
        catalog = await registry.watch_catalog().ready(10)
        assert (catalog.services, catalog.from_disk) == (("cats", "flowers"), True)
        with pytest.raises(RegistryUnreachable):
            await registry.catalog()  # asked for the registry's own word
    finally:
        await registry.aclose()


async def test_what_was_stored_without_a_signature_is_not_believed(tmp_path):
    """Such as before signatures were asked for. One that has ended will do: see `SnapshotStore`."""
    key = SigningKey.generate()
    keys = tmp_path / "keys.json"
    keys.write_bytes(key.public.encode())
    signed = sign_entry(instance("a"), key, expires=1000)
    await write(tmp_path / "snapshots", snapshot(signed, instance("b")))
    signatures = open_signatures(str(keys))
    read = await SnapshotStore(tmp_path / "snapshots", signatures=signatures).load("flowers")
    assert not_none(read).instances == (signed,)
