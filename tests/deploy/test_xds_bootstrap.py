"""The files that clients of xDS read; that they work is shown by real clients elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fingerpost.deploy.commands.xds_bootstrap import xds_bootstrap
from fingerpost.deploy.xds_bootstrap import (
    ClientFiles,
    envoy_bootstrap,
    grpc_bootstrap,
    split_server,
)
from fingerpost.errors import ConfigurationError
from fingerpost.proxy.xds_names import HAS_CERTIFICATE, PROVIDER
from fingerpost.security.callers.api_keys import make_key


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
    tls = ClientFiles(ca="/etc/ca.pem")
    made = grpc_bootstrap([("a", 1), ("::1", 2)], zone="rack-7", files=tls)
    assert [each["server_uri"] for each in made["xds_servers"]] == ["a:1", "[::1]:2"]
    (first, _) = made["xds_servers"]
    assert first["server_features"] == ["xds_v3"]
    watched = {"ca_certificate_file": "/etc/ca.pem", "refresh_interval": "60s"}
    assert first["channel_creds"] == [{"type": "tls", "config": watched}]
    assert made["certificate_providers"] == {
        PROVIDER: {"plugin_name": "file_watcher", "config": watched}
    }
    assert "call_creds" not in first
    assert "metadata" not in made["node"], "a client without a certificate shows none"
    assert made["node"]["locality"] == {"zone": "rack-7"}
    assert made["node"]["id"]
    plain = grpc_bootstrap([("a", 1)])
    assert plain["xds_servers"][0]["channel_creds"] == [{"type": "insecure"}]
    assert plain["node"]["locality"] == {}
    assert "certificate_providers" not in plain


def test_a_client_of_grpc_with_a_certificate_and_a_token() -> None:
    file = "/etc/token"
    files = ClientFiles(ca="ca.pem", cert="own.pem", key="own-key.pem", token_file=file)
    made = grpc_bootstrap([("a", 1)], files=files)
    (server,) = made["xds_servers"]
    (shown,) = server["channel_creds"]
    assert shown["config"]["certificate_file"] == "own.pem"
    assert shown["config"]["private_key_file"] == "own-key.pem"
    assert server["call_creds"] == [{"type": "jwt_token_file", "config": {"jwt_token_file": file}}]
    assert made["node"]["metadata"] == {HAS_CERTIFICATE: True}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ca": "a", "cert": "b"}, "--tls-key"),
        ({"ca": "a", "key": "b"}, "--tls-cert"),
        ({"cert": "b", "key": "c"}, "--tls-ca"),
        ({"token_file": "b"}, "--tls-ca"),
    ],
)
def test_files_that_need_another_one(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ClientFiles(**given)


def test_the_command_makes_paths_whole_and_refuses_an_api_key_for_grpc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("credential")

    def printed(envoy: str | None = None) -> dict[str, Any]:
        xds_bootstrap(proxies=["proxy-1"], tls_ca=Path("ca.pem"), token_file=file, envoy=envoy)
        return dict(json.loads(capsys.readouterr().out))

    file.write_text(f"{make_key()}\n")
    with pytest.raises(ConfigurationError, match="API key.*--tls-cert"):
        printed()
    made = printed(envoy="127.0.0.1:10000")
    (service,) = made["dynamic_resources"]["ads_config"]["grpc_services"]
    (shown,) = service["initial_metadata"]
    assert shown == {"key": "authorization", "value": f"Bearer {file.read_text().strip()}"}
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        printed()
    file.write_text("eyJhbGciOiJFUzI1NiJ9.e30.c2ln")
    (server,) = printed()["xds_servers"]
    assert server["call_creds"][0]["config"]["jwt_token_file"] == str(tmp_path / file)
    assert server["channel_creds"][0]["config"]["ca_certificate_file"] == str(tmp_path / "ca.pem")


def test_an_envoy() -> None:
    made = envoy_bootstrap([("a", 1), ("b", 2)], ("127.0.0.1", 10000))
    (cluster,) = made["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    assert len(group["lb_endpoints"]) == 2
    (listener,) = made["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 10000}


def test_an_envoy_by_tls() -> None:
    files = ClientFiles(ca="ca.pem", cert="own.pem", key="own-key.pem")
    made = envoy_bootstrap([("a", 1), ("::1", 2)], ("127.0.0.1", 10000), files=files)
    (cluster,) = made["static_resources"]["clusters"]
    tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    names = tls["validation_context"]["match_typed_subject_alt_names"]
    assert [(each["san_type"], each["matcher"]["exact"]) for each in names] == [
        ("DNS", "a"),
        ("IP_ADDRESS", "::1"),
    ]
    assert tls["tls_certificates"][0]["private_key"] == {"filename": "own-key.pem"}
