"""Who may register where: every kind of address, with and without allowed networks."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError, InvalidInstance
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.address_policy import (
    AddressPolicy,
    RejectedEntries,
    Rejection,
    RejectionReason,
)

MODELS = (ModelInfo(name="flowers", versions=("1",)),)


def at(host: str) -> Instance:
    return Instance(id="x", service="flowers", host=host, ports={"http": 1}, models=MODELS)


def reason(address_policy: AddressPolicy, host: str) -> RejectionReason | None:
    rejection = address_policy.rejection(at(host))
    if rejection is None:
        return None
    assert host in rejection.message
    return rejection.reason


ALWAYS = {
    "169.254.169.254": RejectionReason.METADATA,
    "169.254.170.2": RejectionReason.LINK_LOCAL,
    "fe80::1": RejectionReason.LINK_LOCAL,
    "febf::1": RejectionReason.LINK_LOCAL,
    "::ffff:169.254.169.254": RejectionReason.METADATA,
    "::ffff:169.254.1.1": RejectionReason.LINK_LOCAL,
    "64:ff9b::169.254.169.254": RejectionReason.METADATA,
    "fd00:ec2::254": RejectionReason.METADATA,
    "100.100.100.200": RejectionReason.METADATA,
    "metadata.google.internal": RejectionReason.METADATA,
    "Metadata.Google.Internal": RejectionReason.METADATA,
    "224.0.0.1": RejectionReason.MULTICAST,
    "ff02::1": RejectionReason.MULTICAST,
    "0.0.0.7": RejectionReason.UNSPECIFIED,
    "::ffff:0.0.0.0": RejectionReason.UNSPECIFIED,
    "255.255.255.255": RejectionReason.RESERVED,
    "240.0.0.1": RejectionReason.RESERVED,
}


@pytest.mark.parametrize(("host", "wanted"), ALWAYS.items())
@pytest.mark.parametrize("networks", [[], ["0.0.0.0/0", "::/0"]], ids=["default", "everything"])
def test_what_is_always_refused(host, wanted, networks):
    assert reason(AddressPolicy.parse(networks), host) is wanted


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.7.9", "8.8.8.8", "2001:db8::7", "fd12::1", "gpu-7"],
)
def test_everything_else_is_let_in_by_default(host):
    assert reason(AddressPolicy(), host) is None


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("64:ff9b::10.1.2.3", None),
        ("2001:db8::7", None),
        ("10.2.0.1", RejectionReason.OUTSIDE_NETWORKS),
        ("127.0.0.1", RejectionReason.OUTSIDE_NETWORKS),
        ("::1", RejectionReason.OUTSIDE_NETWORKS),
        ("2001:db9::7", RejectionReason.OUTSIDE_NETWORKS),
        ("localhost", RejectionReason.HOST_NAME),
        ("gpu-7.example", RejectionReason.HOST_NAME),
    ],
)
def test_a_list_of_networks_is_exhaustive(host, wanted):
    assert reason(AddressPolicy.parse(["10.1.0.0/16", " 2001:db8::/32"]), host) is wanted


def test_a_message_names_the_networks_and_the_remedy():
    address_policy = AddressPolicy.parse(f"10.{n}.0.0/16" for n in range(7))
    message = not_none(address_policy.rejection(at("192.168.0.1"))).message
    assert "10.0.0.0/16" in message
    assert "..." in message
    assert "allow its network" in message


@pytest.mark.parametrize("network", ["", "10.0.0.0/33", "gpu-7", "10.0.0", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_named(network):
    with pytest.raises(ConfigurationError, match="such as 10.0.0.0/8"):
        AddressPolicy.parse([network])


def test_host_bits_are_passed_over():
    assert AddressPolicy.parse(["10.1.2.3/8"]).networks == (ipaddress.ip_network("10.0.0.0/8"),)


@given(st.ip_addresses(), st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_form(address, v4):
    address_policy = AddressPolicy.parse(["10.0.0.0/8", "172.16.0.0/12"])
    for each in (address, v4):
        if not each.is_unspecified and "%" not in str(each):
            judged = address_policy.rejection(at(str(each)))
            assert judged is None or isinstance(judged, Rejection)
    if not v4.is_unspecified:
        plain = address_policy.rejection(at(str(v4)))
        mapped = address_policy.rejection(at(f"::ffff:{v4}"))
        assert (plain and plain.reason) == (mapped and mapped.reason)


@pytest.mark.parametrize(
    "host",
    ["0xa9fea9fe", "0xA9.0xfe.43518", "0251.254.43518", "127.1", "a.0x", "1", "fe80::1%eth0"],
)
def test_an_address_in_disguise_is_no_host(host):
    with pytest.raises(InvalidInstance):
        at(host)


@pytest.mark.parametrize("host", ["0xyz", "3f2a9b1c0d4e", "gpu7", "7up.example", "a.b7"])
def test_names_with_digits_are_hosts(host):
    assert reason(AddressPolicy(), host) is None


def test_refusals_are_counted_when_first_seen():
    rejected_entries = RejectedEntries()
    bad, worse = (
        Rejection(RejectionReason.LINK_LOCAL, "a"),
        Rejection(RejectionReason.MALFORMED, "b"),
    )
    assert list(rejected_entries.note("s", {"y": worse, "x": bad})) == ["x", "y"]
    assert rejected_entries.note("s", {"x": bad, "y": worse}) == {}
    assert rejected_entries.note("t", {"x": bad}) == {"x": bad}
    assert rejected_entries.by_reason == {
        RejectionReason.LINK_LOCAL: 2,
        RejectionReason.MALFORMED: 1,
    }
    assert rejected_entries.note("s", {}) == {}
    assert rejected_entries.note("s", {"x": bad}) == {"x": bad}, "it had been gone"
    assert rejected_entries.total == 4
