"""What release 0.1.0 wrote is read: its registrations and snapshots say `labels` for `aliases`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.support.old_spellings import Warned, warned

from fingerpost.registry import Instance, ModelInfo, ModelReference
from fingerpost.registry.consul.schema.codec import decode_entries
from fingerpost.registry.old_spellings import warn_old_spelling
from fingerpost.registry.watching.snapshot_store import SnapshotStore
from fingerpost.registry.zookeeper.codec import Node, decode_instance, encode_instance

__all__ = ["warned"]  # a fixture

OLD_MODELS = '[{"name":"flowers","versions":["3","2"],"labels":{"stable":"2"}}]'
MODELS = (ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"}),)
INSTANCE = Instance(
    id="a-1", service="flowers", host="10.0.0.1", ports={"http": 80}, models=MODELS, boot_id=7
)
# As release 0.1.0 wrote them.
OLD_JSON = (
    '{"boot_id":7,"host":"10.0.0.1","id":"a-1","meta":{},"models":' + OLD_MODELS + ","
    '"ports":{"http":80},"service":"flowers","weight":1,"zone":""}'
)
OLD_ENTRY = {
    "Node": {"Node": "n", "Address": "10.9.9.9"},
    "Service": {
        "ID": "a-1",
        "Service": "flowers",
        "Address": "10.0.0.1",
        "Port": 80,
        "Tags": ["fingerpost", "http", "v3", "v2", "stable"],
        "Meta": {"fingerpost-boot-id": "7", "fingerpost-models-0": OLD_MODELS},
        "Weights": {"Passing": 1, "Warning": 1},
    },
    "Checks": [{"Status": "passing", "CheckID": "service:a-1"}],
}


async def from_consul(_: Path) -> Instance | None:
    return decode_entries(json.dumps([OLD_ENTRY]).encode(), "flowers")[0].instance


async def from_zookeeper(_: Path) -> Instance | str:
    return decode_instance("a-1", "flowers", Node(OLD_JSON.encode(), 1))


async def from_disk(folder: Path) -> Instance | None:
    text = '{"format":1,"service":"flowers","taken_unix_s":0.0,"index":4,"instances":[' + OLD_JSON
    (folder / "flowers.json").write_text(text + "]}")
    snapshot = await SnapshotStore(folder).load("flowers")
    return snapshot.instances[0] if snapshot is not None else None


@pytest.mark.parametrize("read", [from_consul, from_zookeeper, from_disk])
async def test_an_old_entry_is_read_and_named_once(
    tmp_path: Path, warned: Warned, read: Callable[[Path], Awaitable[object]]
) -> None:
    for _ in range(3):
        assert await read(tmp_path) == INSTANCE
    found = await read(tmp_path)
    assert isinstance(found, Instance)
    assert found.serves(ModelReference.parse("flowers@stable"))
    assert b"labels" not in encode_instance(found)
    (line,) = warned()
    assert "service 'flowers'" in line
    assert "'labels' is the old spelling of 'aliases'" in line


@pytest.mark.parametrize("labels", ["{}", '{"canary":"3"}'])
def test_beside_aliases_the_old_spelling_says_nothing(warned: Warned, labels: str) -> None:
    text = f'{{"name":"flowers","versions":["3","2"],"aliases":{{"stable":"2"}},"labels":{labels}}}'
    assert msgspec.json.decode(text, type=ModelInfo) == MODELS[0]
    assert warned() == []


def test_an_old_entry_without_aliases_is_not_named(warned: Warned) -> None:
    old = OLD_JSON.replace('{"stable":"2"}', "{}")
    assert msgspec.json.decode(old, type=Instance).models[0].aliases == {}
    assert warned() == []


def test_each_source_is_named_once(warned: Warned) -> None:
    for source in ("a", "b", "a"):
        warn_old_spelling("labels", "aliases", source, "upgrade it")
    assert [line.partition(":")[0] for line in warned()] == ["a", "b"]
