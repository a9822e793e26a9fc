"""Answers of proxies as release 0.1.0 and this one write and read them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
from tests.support.old_spellings import Warned, warned

from fingerpost.client.wire import ResolveAnswer, ResolvedInstance, ServiceEntry, ServicesAnswer
from fingerpost.registry import Instance, ModelInfo

__all__ = ["warned"]  # a fixture

PLAIN = ModelInfo(name="cats", versions=("1",))
FLOWERS = ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"})
INSTANCE = Instance(
    id="a-1", service="flowers", host="10.0.0.1", ports={"http": 80}, models=(FLOWERS, PLAIN)
)
ANSWER = ResolveAnswer(
    service="flowers",
    index=7,
    age_s=0.5,
    lease_s=2.0,
    instances=(ResolvedInstance.of(INSTANCE),),
)


class OldModelInfo(msgspec.Struct):
    """As release 0.1.0 reads a model."""

    name: str
    versions: tuple[str, ...]
    labels: Mapping[str, str] = {}


class OldServiceEntry(msgspec.Struct):
    """As release 0.1.0 reads `GET /v1/services`: `labels` is required."""

    name: str
    instances: int
    versions: tuple[str, ...]
    labels: Mapping[str, str]
    age_s: float


def test_an_answer_to_resolve_is_read_by_both_releases(warned: Warned) -> None:
    sent = msgspec.json.encode(ANSWER)
    read = msgspec.json.decode(sent, type=ResolveAnswer)
    assert read.snapshot(time.monotonic()).instances == (INSTANCE,)
    old = [
        msgspec.convert(each, OldModelInfo)
        for each in msgspec.json.decode(sent)["instances"][0]["models"]
    ]
    assert old[0].labels == {"stable": "2"}
    assert old[1].labels == {}
    assert b"labels" not in msgspec.json.encode(INSTANCE), "the instance itself is as it was"
    assert warned() == []


def test_an_answer_of_an_old_proxy_is_read_and_named_once(warned: Warned) -> None:
    sent = msgspec.json.encode(ANSWER).replace(b'"aliases"', b'"unknown"')
    for _ in range(2):
        read = msgspec.json.decode(sent, type=ResolveAnswer).snapshot(time.monotonic())
        assert read.instances == (INSTANCE,)
    (line,) = warned()
    assert "'labels' is the old spelling of 'aliases'" in line


def test_the_list_of_services_is_read_by_both_releases(warned: Warned) -> None:
    entry = ServiceEntry(
        name="flowers", instances=1, versions=("2",), aliases={"stable": "2"}, age_s=0.0
    )
    sent = msgspec.json.encode(ServicesAnswer(services=(entry,)))
    assert msgspec.json.decode(sent, type=ServicesAnswer).services == (entry,)
    (raw,) = msgspec.json.decode(sent)["services"]
    assert msgspec.convert(raw, OldServiceEntry).labels == {"stable": "2"}
    assert warned() == []
    del raw["aliases"]
    assert msgspec.convert(raw, ServiceEntry) == entry
    assert len(warned()) == 1


def test_retained_instances_are_read_and_written_under_their_old_name_too(warned: Warned) -> None:
    answer = ResolveAnswer(
        service="flowers",
        index=7,
        age_s=0.5,
        lease_s=2.0,
        instances=(ResolvedInstance.of(INSTANCE),),
        retained=("a-1",),
    )
    written = msgspec.json.decode(msgspec.json.encode(answer))
    assert written["retained"] == written["kept"] == ["a-1"]
    read = msgspec.json.decode(msgspec.json.encode(written), type=ResolveAnswer)
    assert read.snapshot(time.monotonic()).retained == ("a-1",)
    assert not [each for each in warned() if "kept" in each]
    del written["retained"]
    old = msgspec.json.decode(msgspec.json.encode(written), type=ResolveAnswer)
    assert old.snapshot(time.monotonic()).retained == ("a-1",)
    [warning] = [each for each in warned() if "kept" in each]
    assert "'kept' is the old spelling of 'retained'" in warning
