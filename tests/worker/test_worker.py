"""Which address a worker gives to clients."""

from __future__ import annotations

import ipaddress
import re

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry import RegistryConfig
from fingerpost.worker.address import advertised_host, reachable_host
from fingerpost.worker.config import RegistrationConfig, WorkerConfig


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


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("[::1]", "without brackets, ::1"),
        ("[fd00::7]", "without brackets, fd00::7"),
        ("my_worker", "no underscore"),
        ("worker.", "leave out the dot at its end, worker"),
        ("10.0.0.7:8501", "leave out the port, 10.0.0.7"),
        ("10.0.0.300", "neither an IP address nor a host name"),
        ("fe80::1%eth0", "neither an IP address nor a host name"),
        ("169.254.169.254", "metadata"),
        ("224.0.0.1", "multicast"),
    ],
)
@pytest.mark.parametrize("field", ["advertise", "host"])
def test_an_address_that_no_client_would_take_is_refused_at_once(
    host: str, hint: str, field: str
) -> None:
    named = field == "advertise"
    config = WorkerConfig(
        registration=RegistrationConfig(advertise=host if named else None),
        host="127.0.0.1" if named else host,
    )
    with pytest.raises(ConfigurationError, match=re.escape(hint)) as caught:
        advertised_host(config)
    assert repr(host) in caught.value.message
    assert "--advertise" in caught.value.message


def test_an_address_outside_the_allowed_networks_is_refused_at_once() -> None:
    config = WorkerConfig(
        host="10.1.2.3", registry_config=RegistryConfig(allow_networks=("10.2.0.0/16",))
    )
    with pytest.raises(ConfigurationError, match=r"outside the allowed networks 10\.2\.0\.0/16"):
        advertised_host(config)


@pytest.mark.shell
@pytest.mark.parametrize(
    ("registry", "warned"),
    [
        ("consul://192.0.2.9:8500", True),
        ("consul://127.0.0.1:8500", False),
        ("embedded", False),
        ("consul://consul.example:8500", False),
    ],
)
def test_loopback_is_not_for_a_registry_on_another_machine(
    registry: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert advertised_host(WorkerConfig(registry=registry)) == "127.0.0.1"
    assert ("--advertise" in caplog.text) is warned
