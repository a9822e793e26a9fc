"""Whose connections and attempts are counted together."""

from __future__ import annotations

import pytest

from fingerpost.basics.remote_network import remote_network


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
        ("worker.example", "worker.example"),
    ],
)
def test_an_ipv4_address_counts_by_itself_and_an_ipv6_address_by_its_64(
    address: str, network: str
) -> None:
    assert remote_network(address) == network
