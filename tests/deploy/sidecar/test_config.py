from __future__ import annotations

import pytest

from fingerpost.deploy.sidecar.config import SidecarConfig
from fingerpost.errors import ConfigurationError, InvalidInstance, InvalidName


def config(**values):
    return SidecarConfig(**{"registry": "embedded", "service": "flowers", "port": 9000} | values)


def test_what_is_registered():
    made = config(
        protocol="v2", meta={"size": "8x8"}, advertise="10.0.0.7", weight=3, zone="a"
    ).instance(9000, load_port=9001, nonce="ab")
    assert made.id == "flowers-10.0.0.7-9000-ab"
    assert dict(made.ports) == {"http": 9000, "load": 9001}
    assert (made.protocol, made.weight, made.zone, made.boot_id) == ("v2", 3, "a", 0)
    assert made.load_target == "http://10.0.0.7:9001"
    assert config().instance(9000).load_target == ""
    front = config(front=80).instance(80, load_port=80)
    assert front.load_target == front.target == "http://127.0.0.1:80"


def test_the_registrys_check_is_the_servers():
    assert config(check="http:/ping").access().check.path == "/ping"
    assert config(check="tcp").access().check.mode == "ttl"


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"service": "Flowers"}, InvalidName, "'Flowers'"),
        ({"port": 70000}, InvalidInstance, "70000"),
        ({"check": "ping"}, ConfigurationError, "check='ping': use http:/PATH"),
        ({"host": "::"}, ConfigurationError, "--advertise"),
        ({"protocol": "grpc"}, InvalidInstance, "protocol='grpc': use fingerpost, v2"),
        ({"meta": {"colour": "red"}}, ConfigurationError, "'colour' is not known: use box_format"),
        ({"front": 0, "load": "v2"}, ConfigurationError, "in front, requests are counted"),
        ({"load": "metrics"}, ConfigurationError, "use v2 or /PATH#METRIC"),
        ({"slots": 0}, ConfigurationError, "slots=0"),
        ({"lease_s": -1.0}, ConfigurationError, "lease_s=-1.0"),
    ],
)
def test_what_is_not_valid(values, kind, says):
    with pytest.raises(kind, match=says.replace("(", r"\(")):
        config(**values)
