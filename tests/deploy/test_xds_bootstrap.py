"""The files that clients of xDS read; that they work is shown by real clients elsewhere."""

from __future__ import annotations

import pytest

from fingerpost.deploy.xds_bootstrap import envoy_bootstrap, grpc_bootstrap, split_server
from fingerpost.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("proxy-1", ("proxy-1", 12482)),
        ("proxy-1:7", ("proxy-1", 7)),
        ("10.0.0.7:12482", ("10.0.0.7", 12482)),
        ("[::1]", ("::1", 12482)),
        ("[fd00::2]:9", ("fd00::2", 9)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert split_server(text) == found


@pytest.mark.parametrize("text", ["", "http://proxy", "::1", "a:0", "a:65536", "a:b", "a b", "a/b"])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="give host:port, such as proxy-1:12482"):
        split_server(text)


def test_a_client_of_grpc() -> None:
    made = grpc_bootstrap([("a", 1), ("::1", 2)], zone="rack-7", ca="/etc/ca.pem")
    assert [each["server_uri"] for each in made["xds_servers"]] == ["a:1", "[::1]:2"]
    (first, _) = made["xds_servers"]
    assert first["server_features"] == ["xds_v3"]
    assert first["channel_creds"] == [
        {"type": "tls", "config": {"ca_certificate_file": "/etc/ca.pem"}}
    ]
    assert made["node"]["locality"] == {"zone": "rack-7"}
    assert made["node"]["id"]
    plain = grpc_bootstrap([("a", 1)])
    assert plain["xds_servers"][0]["channel_creds"] == [{"type": "insecure"}]
    assert plain["node"]["locality"] == {}


def test_an_envoy() -> None:
    made = envoy_bootstrap([("a", 1), ("b", 2)], ("127.0.0.1", 10000))
    (cluster,) = made["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    assert len(group["lb_endpoints"]) == 2
    (listener,) = made["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 10000}
