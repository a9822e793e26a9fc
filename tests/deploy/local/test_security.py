"""What the options of `fingerpost up` make of each process's options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fingerpost.deploy.local.consul import POLICIES
from fingerpost.deploy.local.hints import hints
from fingerpost.deploy.local.security import ClusterSecurity
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

_TLS = TlsConfig(cert="c.pem", key="k.pem", client_ca="ca.pem", ca="ca.pem", trust_domain="x.org")
_CONSUL = Path(__file__).parents[3] / "deploy" / "consul" / "policies"


def test_nothing_is_passed_on_without_options() -> None:
    security = ClusterSecurity()
    assert security.registry_options == security.proxy_options == security.worker_options == []
    assert hints(security, "digits", "http://127.0.0.1:1", only=True) == [
        'curl -F data=@image.png "$(curl -s 127.0.0.1:1)"',
        "fingerpost classify --model digits --proxy http://127.0.0.1:1 image.png",
        "fingerpost status --proxy http://127.0.0.1:1",
    ]


def test_each_process_gets_what_it_takes() -> None:
    security = ClusterSecurity(
        tls=_TLS,
        callers="callers.toml",
        audit_log="audit.log",
        lease_key=Path("lease.key"),
        lease_bind=True,
        registration_key=Path("r.key"),
        registry_config=RegistryConfig(registration_keys="r.json", allow_networks=("10.0.0.0/8",)),
    )
    tls = ["--tls-cert=c.pem", "--tls-key=k.pem", "--tls-client-ca=ca.pem"]
    believes = ["--tls-ca=ca.pem", "--trust-domain=x.org"]
    access = [
        *("--registry-ca-file=ca.pem", "--registry-cert-file=c.pem", "--registry-key-file=k.pem"),
        *("--registration-keys=r.json", "--allow-network=10.0.0.0/8"),
    ]
    asks = ["--callers=callers.toml", "--audit-log=audit.log"]
    assert security.registry_options == [*tls, *believes, "--audit-log=audit.log"]
    assert security.proxy_options == [
        *(*tls, *believes, *access, *asks, "--lease-key=lease.key", "--lease-bind")
    ]
    assert security.worker_options == [
        *(*tls, *access, *asks, "--require-lease", "--registration-key=r.key")
    ]
    curl, *_ = hints(security, "digits", "https://127.0.0.1:1", only=False)
    assert "--cacert ca.pem --cert client.pem" in curl
    assert '-H "Authorization: Bearer $KEY" https://127.0.0.1:1/v1/resolve/digits?n=1' in curl


def test_a_registry_of_its_own_is_not_asked_with_our_certificate() -> None:
    security = ClusterSecurity(embedded=False, tls=_TLS)
    assert not [each for each in security.worker_options if "registry" in each]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tls": TlsConfig(cert="c", key="k")}, r"--tls-ca"),
        ({"tls": TlsConfig(ca="ca")}, r"--tls-cert, --tls-key"),
        ({"lease_bind": True, "tls": _TLS}, r"give --lease-key"),
        ({"lease_bind": True, "lease_key": Path("k")}, r"--tls-client-ca"),
    ],
    ids=["no authority", "no certificate", "no leases", "no client certificates"],
)
def test_what_cannot_work_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ClusterSecurity(**given)


@pytest.mark.parametrize("name", POLICIES)
def test_the_demo_s_tokens_have_the_rights_that_the_manual_gives(name: str) -> None:
    text = re.sub(r"#.*", "", (_CONSUL / f"{name}.hcl").read_text())
    rules = re.findall(r'\w+ "[^"]*" \{\s*policy = "\w+"\s*\}', text)
    assert rules
    assert sorted(map(_plain, rules)) == sorted(map(_plain, _rules(POLICIES[name])))


def _rules(text: str) -> list[str]:
    return re.findall(r'\w+ "[^"]*" \{ policy = "\w+" \}', text)


def _plain(rule: str) -> str:
    return " ".join(rule.split())
