from __future__ import annotations

import msgspec
import pytest
from tests.support.optional import not_none

from fingerpost.client.wire import ResolvedInstance
from fingerpost.errors import InvalidInstance
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.codec import decode_entries, encode_instance
from fingerpost.registry.entry_signature import canonical_entry, entry_verdict, sign_entry
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.statement import Flaw
from fingerpost.security.signing.trusted_keys import TrustedKeys

KEY = SigningKey.generate()
KEYS = TrustedKeys(KEY.public, {})
INSTANCE = Instance(
    id="flowers-1",
    service="flowers",
    host="10.0.0.7",
    ports={"http": 8501, "grpc": 8502},
    models=(ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2"}),),
    weight=2,
    zone="rack 7",
    boot_id=4711,
    meta={"device": "gpu:0", "fingerpost": "0.2.0"},
)
SIGNED = sign_entry(INSTANCE, KEY, expires=1000)


def test_an_entry_as_signed_is_believed():
    assert entry_verdict(SIGNED, KEYS).flaw is None
    assert entry_verdict(INSTANCE, KEYS).flaw is Flaw.UNSIGNED


@pytest.mark.parametrize(
    "change",
    [
        {"id": "flowers-2"},
        {"service": "birds"},
        {"host": "10.0.0.8"},
        {"ports": {"http": 8501}},
        {"models": (ModelInfo(name="flowers", versions=("4",)),)},
        {"weight": 65535},
        {"weight": 1},
        {"zone": ""},
        {"boot_id": 0},
        {"meta": {}},
        {"meta": {"device": "gpu:0", "fingerpost": "0.2.0", "x": ""}},
    ],
    ids=str,
)
def test_no_field_can_be_changed(change):
    changed = msgspec.structs.replace(SIGNED, **change)
    assert entry_verdict(changed, KEYS).flaw is Flaw.WRONG_SIGNATURE


def test_every_field_of_an_instance_is_signed():
    """A field that is added later is signed, too, wherever it does not have its default."""
    signed = set(msgspec.json.decode(canonical_entry(SIGNED)))
    everything = {each.name for each in msgspec.structs.fields(Instance)} - {"signature"}
    optional = {"tls"}  # False here
    assert everything - optional <= signed <= everything


def test_the_order_of_what_has_no_order_does_not_matter():
    turned = msgspec.structs.replace(
        SIGNED,
        ports={"grpc": 8502, "http": 8501},
        meta={"fingerpost": "0.2.0", "device": "gpu:0"},
    )
    assert entry_verdict(turned, KEYS).flaw is None


def test_the_address_for_other_datacenters_is_signed_too():
    both = sign_entry(INSTANCE, KEY, expires=1000, wan_address="203.0.113.9")
    for host, flaw in (("10.0.0.7", None), ("203.0.113.9", None), ("203.0.113.8", "wrong")):
        read = msgspec.structs.replace(both, host=host)
        assert (entry_verdict(read, KEYS).flaw is None) == (flaw is None)
    assert len(str(both.signature)) < 512


@pytest.mark.parametrize("text", ["x", "~", "~" * 300, "a.b.c", "é", "x" * 100_000])
def test_what_is_not_a_signature(text):
    assert entry_verdict(msgspec.structs.replace(INSTANCE, signature=text), KEYS).flaw


def test_a_proxys_answer_has_it():
    sent = msgspec.json.encode(ResolvedInstance.of(SIGNED))
    read = msgspec.json.decode(sent, type=ResolvedInstance).instance("flowers")
    assert entry_verdict(read, KEYS).flaw is None


def test_nothing_is_written_of_a_signature_that_is_not_there():
    assert b"signature" not in msgspec.json.encode(INSTANCE)
    assert b"signature" not in msgspec.json.encode(ResolvedInstance.of(INSTANCE))


def test_models_that_consul_would_shorten_cannot_be_signed():
    versions = tuple(str(number * 7919**4 % 10**17 + 1) for number in range(1, 9000))
    many = msgspec.structs.replace(INSTANCE, models=(ModelInfo(name="flowers", versions=versions),))
    assert encode_instance(many, CheckConfig())
    with pytest.raises(InvalidInstance, match="signature is of all"):
        encode_instance(sign_entry(many, KEY, expires=1000), CheckConfig())


def test_readers_in_another_datacenter_get_the_other_address_and_believe_it():
    signed = sign_entry(INSTANCE, KEY, expires=1000, wan_address="203.0.113.9")
    written = encode_instance(signed, CheckConfig(), wan_address="203.0.113.9")
    service = {
        "ID": written["service_id"],
        "Service": written["name"],
        "Address": written["address"],
        "Port": written["port"],
        "Meta": written["meta"],
        "Weights": written["weights"],
        "TaggedAddresses": written["tagged_addresses"],
    }
    body = msgspec.json.encode([{"Node": {}, "Service": service, "Checks": []}])
    for remote, host in ((False, "10.0.0.7"), (True, "203.0.113.9")):
        (entry,) = decode_entries(body, "flowers", remote=remote)
        read = not_none(entry.instance)
        assert read.host == host
        assert entry_verdict(read, KEYS).flaw is None
