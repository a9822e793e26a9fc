"""Instances as Consul's service entries, and back."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.consul_entries import INSTANCE, decode, entry
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError, InvalidInstance, RegistryError
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.config import CheckConfig
from fingerpost.registry.consul.schema.checks import format_duration
from fingerpost.registry.consul.schema.codec import (
    decode_catalog,
    decode_entries,
    encode_instance,
)


def test_what_is_registered():
    assert encode_instance(INSTANCE, CheckConfig()) == {
        "name": "flowers",
        "service_id": "flowers-10.0.0.1-8501-x7",
        "address": "10.0.0.1",
        "port": 8501,
        "tags": ["fingerpost", "http", "rpc", "v3", "v2", "stable"],
        "meta": {
            "fingerpost-boot-id": "12345",
            "fingerpost-zone": "rack-7",
            "fingerpost-port-rpc": "8502",
            "fingerpost-models-0": (
                '[{"name":"flowers","versions":["3","2"],"aliases":{"stable":"2"}}]'
            ),
            "framework": "tensorflow",
        },
        "weights": {"Passing": 4, "Warning": 1},
        "check": {
            "CheckID": "service:flowers-10.0.0.1-8501-x7",
            "Name": "engine of flowers-10.0.0.1-8501-x7",
            "HTTP": "http://10.0.0.1:8501/health/engine?boot_id=12345",
            "Interval": "1000ms",
            "Timeout": "500ms",
            "DeregisterCriticalServiceAfter": "60000ms",
            "Status": "passing",
        },
    }


# As regular expressions they would be drawn five times slower.
SMALL, DIGITS = string.ascii_lowercase, string.digits
names = st.text(SMALL + DIGITS + "-", min_size=1, max_size=22).filter(
    lambda name: name[0] != "-" != name[-1]
)
versions = st.text(DIGITS, min_size=1, max_size=18)
keys = st.text(string.ascii_letters + DIGITS + "_-", min_size=1, max_size=40).filter(
    lambda key: not key.startswith(("fingerpost-", "consul-"))
)
alias_names = st.builds(str.__add__, st.sampled_from(SMALL), st.text(SMALL + DIGITS, max_size=10))
ids = st.text(string.ascii_letters + DIGITS + "_-", min_size=1, max_size=128).filter(
    lambda each: each[0] not in "_-" and each[-1] not in "_-"
)
ports = st.integers(1, 65535)


@st.composite
def models(draw):
    offered = draw(st.lists(versions, min_size=1, max_size=20, unique=True))
    aliases = draw(st.dictionaries(alias_names, st.sampled_from(offered)))
    return ModelInfo(name=draw(names), versions=tuple(offered), aliases=aliases)


instances = st.builds(
    Instance,
    id=ids,
    service=names,
    host=st.ip_addresses().filter(lambda ip: not ip.is_unspecified).map(str),
    ports=st.fixed_dictionaries({"http": ports}, optional={"rpc": ports, "zmq": ports}),
    models=st.lists(models(), min_size=1, max_size=8).map(tuple),
    weight=st.integers(1, 65535),
    zone=st.text(max_size=100),
    boot_id=st.integers(0, 2**53 - 1),
    meta=st.dictionaries(keys, st.text(max_size=100), max_size=10),
)


@pytest.mark.slow
@given(instances)
def test_every_instance_survives_the_round_trip(instance):
    (back,) = decode(entry(instance), service=instance.service)
    assert back.rejection == ""
    assert back.instance == instance
    sent = encode_instance(instance, CheckConfig())["meta"]
    assert all(len(value.encode()) <= 512 and len(key) <= 128 for key, value in sent.items())


@pytest.mark.parametrize(
    "fields",
    [
        {"meta": {"a.b": "c"}},
        {"meta": {"": "c"}},
        {"meta": {"é": "c"}},
        {"meta": {"a": "x" * 513}},
        {"meta": {"a": "é" * 257}},
        {"meta": {"fingerpost-zone": "z"}},
        {"meta": {"consul-x": "z"}},
        {"meta": {f"k{number}": "" for number in range(64)}},
        {"zone": "z" * 513},
        {"ports": {"http": 1, "a.b": 2}},
        {"ports": {"http": 1} | {f"p{number}": 2 for number in range(63)}},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_what_does_not_fit_into_consul_is_refused_before_any_call(fields):
    given_ = {name: getattr(INSTANCE, name) for name in INSTANCE.__struct_fields__}
    with pytest.raises(InvalidInstance, match=INSTANCE.id):
        encode_instance(Instance(**given_ | fields), CheckConfig())


def test_a_wan_address_is_what_other_datacenters_use():
    sent = encode_instance(INSTANCE, CheckConfig(), wan_address="gpu7.example")
    addresses = {
        "lan": {"Address": "10.0.0.1", "Port": 8501},
        "wan": {"Address": "gpu7.example", "Port": 8501},
    }
    assert sent["tagged_addresses"] == addresses
    body = json.dumps([entry(TaggedAddresses=addresses)]).encode()
    assert decode_entries(body, "flowers")[0].instance == INSTANCE
    assert not_none(decode_entries(body, "flowers", remote=True)[0].instance).host == "gpu7.example"
    (plain,) = decode_entries(json.dumps([entry()]).encode(), "flowers", remote=True)
    assert plain.instance == INSTANCE


@pytest.mark.parametrize("wan", [{"Address": "not a host!", "Port": 1}, {"Port": 1}, 7, None])
def test_a_wan_address_that_makes_no_sense_is_refused(wan):
    body = json.dumps([entry(TaggedAddresses={"wan": wan})]).encode()
    assert decode_entries(body, "flowers", remote=True)[0].instance is None


def test_a_ttl_check_has_no_url_and_its_reports_come_every_third():
    check = CheckConfig(mode="ttl", ttl_s=45)
    assert encode_instance(INSTANCE, check)["check"] == {
        "CheckID": "service:flowers-10.0.0.1-8501-x7",
        "Name": "engine of flowers-10.0.0.1-8501-x7",
        "TTL": "45000ms",
        "DeregisterCriticalServiceAfter": "60000ms",
        "Status": "passing",
    }
    assert check.heartbeat_s == 15
    assert CheckConfig().heartbeat_s is None


@pytest.mark.parametrize(
    ("checks", "healthy"),
    [
        ((), True),
        (("passing", "passing"), True),
        (("passing", "warning"), False),
        (("passing", "critical"), False),
        (("maintenance",), False),
    ],
    ids=str,
)
def test_healthy_means_that_every_check_passes(checks, healthy):
    assert decode(entry(checks=checks))[0].healthy is healthy


def test_an_entry_without_an_address_is_at_its_nodes():
    assert not_none(decode(entry(Address=""))[0].instance).host == "10.9.9.9"


def test_metadata_cannot_replace_the_http_port():
    meta = entry()["Service"]["Meta"] | {"fingerpost-port-http": "1"}
    assert not_none(decode(entry(Meta=meta))[0].instance).ports["http"] == 8501


META = entry()["Service"]["Meta"]


@pytest.mark.parametrize(
    "service",
    [
        {"ID": 7},
        {"ID": ""},
        {"ID": "../x"},
        {"ID": "x" * 5000},
        {"Service": "another"},
        {"Port": "80"},
        {"Port": -1},
        {"Port": 8501.5},
        {"Address": "user@host"},
        {"Address": None},
        {"Weights": None},
        {"Weights": {"Passing": 0}},
        {"Weights": {"Passing": 70000}},
        {"Meta": []},
        {"Meta": {"fingerpost-models-1": "[]"}},
        {"Meta": META | {"fingerpost-models-0": "null"}},
        {"Meta": META | {"fingerpost-models-0": '[{"x":' + "[" * 100_000}},
        {"Meta": META | {"fingerpost-models-0": '[{"name":"a","versions":"1"}]'}},
        {"Meta": META | {"fingerpost-models-0": '[{"name":"a","versions":[]}]'}},
        {"Meta": META | {"fingerpost-boot-id": str(2**53)}},
        {"Meta": META | {"fingerpost-boot-id": "٣"}},
        {"Meta": META | {"fingerpost-port-rpc": "0"}},
    ],
    ids=lambda service: str(service)[:50],
)
def test_an_entry_that_makes_no_sense_is_refused_alone(service):
    good, bad = decode(entry(), entry(**service))
    assert good.instance == INSTANCE
    assert bad.instance is None
    assert not bad.healthy
    assert 0 < len(bad.rejection) <= 500
    assert len(bad.id) <= 128


@pytest.mark.parametrize("junk", [None, 7, "x", [], {}, {"Service": {}}, {"Service": {"ID": "a"}}])
def test_junk_beside_a_good_entry_is_refused_alone(junk):
    good, bad = decode(entry(), junk)
    assert good.instance == INSTANCE
    assert bad.instance is None


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_list_is_an_error(body):
    with pytest.raises(RegistryError):
        decode_entries(body, "flowers")


def test_the_catalog_holds_tagged_services_with_possible_names_only():
    body = {
        "flowers": ["v1", "fingerpost"],
        "cats": ["fingerpost"],
        "consul": [],
        "redis": None,
        "other": ["Fingerpost-like"],
        "Bad Name": ["fingerpost"],
        "../x": ["fingerpost"],
    }
    ours, others = decode_catalog(json.dumps(body).encode())
    assert ours == ("cats", "flowers")
    assert "consul" not in others


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a": 7}', b"\xff"])
def test_a_catalog_that_cannot_be_read_is_an_error(body):
    with pytest.raises(RegistryError):
        decode_catalog(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "x"},
        {"interval_s": 0.5},
        {"timeout_s": 0},
        {"deregister_after_s": 59},
        {"mode": "ttl", "ttl_s": 29.9},
        {"mode": "tcp"},
    ],
    ids=str,
)
def test_a_check_that_consul_would_not_take_is_a_configuration_error(fields):
    with pytest.raises(ConfigurationError):
        CheckConfig(**fields)


def test_durations_are_whole_milliseconds():
    assert [format_duration(s) for s in (20, 0.5, 0.0004)] == ["20000ms", "500ms", "0ms"]
