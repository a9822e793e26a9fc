"""The models of an instance in Consul's metadata, however many they are; and hostile ones."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest
from tests.support.consul_entries import INSTANCE, decode, entry
from tests.support.optional import not_none

from fingerpost.errors import InvalidInstance
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import MAX_TAGS, encode_instance
from fingerpost.registry.consul.schema.models import (
    LEFT_OUT,
    MAX_MODELS_BYTES,
    Budget,
    decode_models,
    encode_models,
)


def with_models(models, **fields):
    all_fields: dict[str, Any] = {
        name: getattr(INSTANCE, name) for name in INSTANCE.__struct_fields__
    }
    all_fields |= {"models": tuple(models)} | fields
    return Instance(**all_fields)


def many(count, versions=3):
    return [
        ModelInfo(
            name=f"species-{number:05}",
            versions=tuple(str(number + version) for version in range(versions, 0, -1)),
            aliases={"stable": str(number + 1), "canary": str(number + versions)},
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 100, 500, 1000])
def test_any_usual_number_of_models_fits_and_survives(count):
    instance = with_models(many(count))
    sent = encode_instance(instance, CheckConfig())
    assert len(sent["meta"]) <= 64
    assert all(len(value.encode()) <= 512 for value in sent["meta"].values())
    assert len(sent["tags"]) <= MAX_TAGS
    assert LEFT_OUT not in sent["meta"]
    assert decode(entry(instance))[0].instance == instance


def test_too_many_versions_leave_the_newest_and_those_with_an_alias():
    model = ModelInfo(
        name="flowers",
        versions=tuple(str(number * 7919**3 % 10**17) for number in range(20_000, 0, -1)),
    )
    model = ModelInfo(name="flowers", versions=model.versions, aliases={"old": model.versions[-1]})
    (back,) = decode(entry(with_models([model])))
    assert not_none(back.instance).models == (
        ModelInfo(
            name="flowers",
            versions=(model.versions[0], model.versions[-1]),
            aliases=model.aliases,
        ),
    )


@pytest.mark.slow
def test_too_many_models_keep_the_services_own_and_say_how_many_are_left_out():
    models = [*many(60_000, versions=2), *INSTANCE.models]
    instance = with_models(models)
    meta = encode_instance(instance, CheckConfig())["meta"]
    (back,) = decode(entry(instance))
    kept = not_none(back.instance).models
    assert kept[0] == ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"})
    assert len(kept) > 1500
    assert [model.name for model in kept[1:]] == [model.name for model in models[: len(kept) - 1]]
    assert int(meta[LEFT_OUT]) == len(models) - len(kept)
    assert len(meta) <= 64


def test_metadata_of_ones_own_may_leave_little_room_for_models():
    own = {f"k{number}": "v" for number in range(56)}
    (back,) = decode(entry(with_models(many(5000), meta=own)))
    assert back.instance is not None
    assert back.instance.meta == own
    assert len(back.instance.models) > 50


def packed(text):
    pieces = base64.b85encode(zlib.compress(text, 9)).decode()
    return {
        f"fingerpost-packed-{number}": pieces[512 * number : 512 * (number + 1)]
        for number in range(-(-len(pieces) // 512))
    }


@pytest.mark.parametrize(
    "meta",
    [
        packed(b"[" + b" " * MAX_MODELS_BYTES),
        packed(b" " * 10_000_000),
        packed(b"[]"),
        packed(b"\xff"),
        packed(b"[" * 200_000),
        {"fingerpost-packed-0": "not base 85 \u00e9"},
        {"fingerpost-packed-0": "abcde"},
        {
            "fingerpost-packed-0": packed(b'[{"name":"a","versions":["1"]}]' * 9)[
                "fingerpost-packed-0"
            ][:20]
        },
        {"fingerpost-packed-1": "x"},
    ],
    ids=range(9),
)
def test_hostile_packed_models_are_refused_alone(meta):
    good, bad = decode(entry(), entry(Meta=meta))
    assert good.instance == INSTANCE
    assert bad.instance is None


def test_what_all_entries_of_an_answer_unpack_to_is_bounded():
    budget = Budget(100_000)
    pairs = encode_models("flowers", many(500), 60)
    assert len(decode_models(pairs, budget)) == 500
    assert budget.left < 100_000
    with pytest.raises(InvalidInstance, match="over"):
        for _ in range(10):
            decode_models(pairs, budget)


def test_device_and_transports_survive():
    instance = with_models(
        INSTANCE.models,
        ports={"http": 8501, "rpc": 8502, "zmq": 8503},
        meta={
            "framework": "tensorflow",
            "device": "gpu",
            "gpu-name": "NVIDIA H200",
            "gpu-memory-bytes": str(141 * 2**30),
            "gpu-count": "8",
            "gpu-fraction": "0.25",
            "image-size": "224x224",
        },
    )
    assert decode(entry(instance))[0].instance == instance
