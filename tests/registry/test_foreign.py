"""Entries that are not Fingerpost's: which instance they are, and who uses them."""

from __future__ import annotations

import json

import pytest
from tests.support.consul_entries import decode, entry

from fingerpost.errors import ConfigurationError, InvalidInstance, InvalidName
from fingerpost.registry import ModelReference
from fingerpost.registry.address_policy import AddressPolicy, RejectionReason
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.entry_signature import sign_entry
from fingerpost.registry.foreign import decode_plain, foreign_instance
from fingerpost.registry.watching.signatures import EntrySignatures, entry_rejection
from fingerpost.registry.zookeeper.codec import Node, decode_instance, encode_instance
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.trusted_keys import TrustedKeysFile
from fingerpost.security.tls import TlsConfig

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
PLAIN = foreign_instance("flowers", host="10.0.0.7", port=9000)


def plain(**service):
    return entry(ID="flowers", Meta=None, Tags=[], **service)


@pytest.fixture
def signatures(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(KEY.public.encode())
    return EntrySignatures(TrustedKeysFile(path), wall=lambda: 1000.0)


def test_a_consul_entry_without_our_metadata_is_a_foreign_worker():
    (found,) = decode(plain(Address="", Port=9000))
    instance = found.instance
    assert instance is not None
    assert instance.id == "flowers-10.9.9.9-9000", "two machines have an entry of the same id"
    assert (found.own_id, found.healthy) == ("flowers", True)
    assert (instance.address, instance.target) == ("10.9.9.9:9000", "http://10.9.9.9:9000")
    assert instance.foreign
    assert instance.serves(ModelReference("flowers"))
    assert not instance.serves(ModelReference("flowers", version="3"))


def test_its_metadata_say_what_it_speaks_and_which_version_it_has():
    meta = {"protocol": "v2", "version": "3", "scheme": "https", "team": "vision"}
    (found,) = decode(plain() | {"Service": plain()["Service"] | {"Meta": meta}})
    instance = found.instance
    assert instance is not None
    assert (instance.protocol, dict(instance.meta)) == ("v2", meta)
    assert instance.target == "https://10.0.0.1:8501"
    assert instance.serves(ModelReference("flowers", version="3"))


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"protocol": "grpc"}, "protocol='grpc': use fingerpost, v2"),
        ({"version": "latest"}, "'latest' is not a valid model version"),
        ({"fingerpost-zone": "a"}, "it was not registered by Fingerpost"),
    ],
)
def test_what_is_not_valid_is_rejected_by_itself(meta, says):
    bad = plain()
    bad["Service"]["Meta"] = meta
    found, good = decode(bad, plain(Port=9001))
    assert says in found.rejection
    assert good.instance is not None


@pytest.mark.parametrize(
    ("data", "host", "port", "protocol"),
    [
        (b"10.0.0.7:9000", "10.0.0.7", 9000, "form"),
        (b"[fe80::1]:80\n", "fe80::1", 80, "form"),
        (b'{"name": "flowers", "address": "10.0.0.7", "port": 9000}', "10.0.0.7", 9000, "form"),
        (b'{"address": "h", "port": 1, "payload": {"protocol": "v2"}}', "h", 1, "v2"),
    ],
)
def test_nodes_of_zookeeper(data, host, port, protocol):
    found = decode_instance("n-1", "flowers", Node(data, 0))
    assert not isinstance(found, str), found
    assert (found.id, found.host, found.ports) == ("n-1", host, {"http": port})
    assert found.protocol == protocol


def test_nodes_of_zookeeper_that_are_none():
    assert decode_plain(encode_instance(PLAIN), "n-1", "flowers") is None
    assert decode_plain(b'{"address": 7}', "n-1", "flowers") is None
    with pytest.raises(InvalidInstance, match="no address"):
        decode_plain(b'{"address": "", "port": 1}', "n-1", "flowers")
    with pytest.raises(InvalidInstance, match="70000"):
        decode_plain(b"10.0.0.7:70000", "n-1", "flowers")


def test_only_a_foreign_worker_may_have_no_version():
    (ours,) = decode(entry())
    assert ours.instance is not None
    body = json.loads(encode_instance(ours.instance))
    body["models"][0] |= {"versions": [], "aliases": {}}
    found = decode_instance(body["id"], "flowers", Node(json.dumps(body).encode(), 1))
    assert found == "model 'flowers' lists no version"


# Which are used


def _reason(instance, policy, signatures=None):
    rejection = entry_rejection(instance, policy, signatures)
    return None if rejection is None else rejection.reason


def test_in_an_open_cluster_all_are_used():
    assert _reason(PLAIN, RegistryConfig().address_policy()) is None


@pytest.mark.parametrize("named", [(), ("cats",)])
def test_only_those_that_are_named_where_names_are_given(named):
    policy = RegistryConfig(foreign_services=named).address_policy()
    assert _reason(PLAIN, policy) is RejectionReason.FOREIGN
    policy = RegistryConfig(foreign_services=(*named, "flowers")).address_policy()
    assert _reason(PLAIN, policy) is None


def test_where_workers_have_certificates_they_have_to_be_named():
    tls = TlsConfig(ca="ca.pem")
    assert _reason(PLAIN, RegistryConfig().address_policy(tls)) is RejectionReason.FOREIGN
    named = RegistryConfig(foreign_services=("flowers",)).address_policy(tls)
    assert _reason(PLAIN, named) is None
    changing = TlsConfig(ca="ca.pem", allow_plain=True)
    assert _reason(PLAIN, RegistryConfig().address_policy(changing)) is None


def test_where_registrations_are_signed_they_have_to_be_named_or_signed(signatures):
    policy = AddressPolicy()  # even one that names nothing
    assert _reason(PLAIN, policy, signatures) is RejectionReason.FOREIGN
    assert _reason(sign_entry(PLAIN, KEY, expires=2000), policy, signatures) is None
    forged = sign_entry(PLAIN, OTHER, expires=2000)
    named = AddressPolicy(foreign_services=frozenset({"flowers"}))
    assert _reason(PLAIN, named, signatures) is None
    for each in (policy, named):
        assert _reason(forged, each, signatures) is RejectionReason.UNKNOWN_KEY


def test_a_name_lets_in_nothing_that_claims_to_be_fingerposts(signatures):
    named = AddressPolicy(foreign_services=frozenset({"flowers"}))
    (ours,) = decode(entry())
    assert _reason(ours.instance, named, signatures) is RejectionReason.UNSIGNED


def test_with_certificates_and_signatures_a_signature_is_no_certificate(signatures):
    closed = RegistryConfig().address_policy(TlsConfig(ca="ca.pem"))
    signed = sign_entry(PLAIN, KEY, expires=2000)
    assert _reason(signed, closed, signatures) is RejectionReason.FOREIGN


def test_addresses_are_judged_as_those_of_all_others():
    instance = foreign_instance("flowers", host="169.254.169.254", port=80)
    named = AddressPolicy(foreign_services=frozenset({"flowers"}))
    assert _reason(instance, named) is RejectionReason.METADATA


def test_names_of_services_are_checked():
    with pytest.raises(InvalidName):
        RegistryConfig(foreign_services=("../kv",))
    with pytest.raises(ConfigurationError):
        RegistryConfig(allow_networks=("x",)).address_policy()
