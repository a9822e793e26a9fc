"""Which address a worker gives to clients."""

from __future__ import annotations

import ipaddress

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.worker import reachable_host


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "worker-7.example", "::1"])
def test_an_address_that_was_named_is_given(host: str) -> None:
    assert reachable_host(host, "consul://127.0.0.1:8500") == host


@pytest.mark.shell
@pytest.mark.parametrize(
    "registry",
    [
        "consul://127.0.0.1:8500",
        "consul://localhost:8500",
        "embedded",
        "http://[::1]:8500",
        "zookeeper://user:secret@127.0.0.1:2181,127.0.0.2:2181/fingerpost",
    ],
)
def test_beside_a_local_registry_it_is_no_loopback_address(registry: str) -> None:
    """Consul's agent is on every machine; clients on others must not be sent to their own."""
    try:
        address = reachable_host("0.0.0.0", registry)  # noqa: S104 - the case in question
    except ConfigurationError as error:
        assert "--advertise" in error.message
    else:
        assert not ipaddress.ip_address(address).is_loopback
