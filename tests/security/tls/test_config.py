"""What `TlsConfig` refuses."""

from __future__ import annotations

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.security.tls import TlsConfig


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"cert": "a.pem"}, "has no key"),
        ({"key": "a.pem"}, "has no certificate"),
        ({"client_ca": "ca.pem"}, "only with TLS"),
        ({"trust_domain": "example.org"}, "--tls-ca"),
        ({"trust_domain": "Example.org", "ca": "ca.pem"}, "'Example.org' is not a valid SPIFFE"),
        ({"trust_domain": "spiffe://a", "ca": "ca.pem"}, "not a valid SPIFFE trust domain"),
        ({"allow_plain": True}, "only with ca"),
        ({"ca": ""}, "name of a PEM file"),
        ({"ca": 3}, "name of a PEM file"),
    ],
)
def test_refuses(given, says):
    with pytest.raises(ConfigurationError, match=says):
        TlsConfig(**given)


def test_serves_with_a_certificate_only():
    assert TlsConfig(cert="a", key="b").serves
    assert not TlsConfig(ca="a").serves
