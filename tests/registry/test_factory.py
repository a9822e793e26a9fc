"""From a URL to a registry, without any I/O."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fingerpost.registry
from fingerpost.errors import ConfigurationError
from fingerpost.registry import ConsulRegistry, open_registry
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.static import StaticRegistry
from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
        ("http://127.0.0.1:12481/", "http://127.0.0.1:12481"),
        ("https://consul.example", "https://consul.example:8501"),
        ("embedded", "http://127.0.0.1:12481"),
        ("consul://consul.example:1", "http://consul.example:1"),
        ("consul://consul.example", "http://consul.example:8500"),
        ("consul+https://consul.example:8501", "https://consul.example:8501"),
        ("CONSUL://consul.example", "http://consul.example:8500"),
        ("consul://[::1]:8500", "http://[::1]:8500"),
    ],
)
def test_consul(url, wanted):
    registry = open_registry(url)
    assert isinstance(registry, ConsulRegistry)
    assert registry.url == wanted


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8500",
        "consul:",
        "consul://",
        "zookeeper://",
        "static://",
        "etcd://127.0.0.1:2379",
        "file:///etc/passwd",
        "consul+ftp://x",
        "consul://host:0x50",
        "consul://host:99999",
        "consul://host/v1",
        "consul://host?token=x",
        "consul://host#x",
    ],
)
def test_anything_else_is_refused_with_its_value(url):
    with pytest.raises(ConfigurationError) as caught:
        open_registry(url)
    assert repr(url) in str(caught.value) or url.partition("://")[2] in str(caught.value)


def test_other_registries():
    assert type(open_registry("static://10.0.0.1:12500")).__name__ == "StaticRegistry"
    zookeeper = open_registry(
        "ZooKeeper://10.0.0.1:2181/fingerpost",
        RegistryConfig(token="me:secret"),  # noqa: S106
    )
    assert type(zookeeper).__name__ == "ZooKeeperRegistry"


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("static://10.0.0.1:1", {"token": "x"}),
        ("static://10.0.0.1:1", {"verify": False}),
        ("zookeeper://10.0.0.1/x", {"ca_file": "x"}),
        ("zookeeper://10.0.0.1/x", {"datacenters": ("dc1",)}),
        ("zookeeper://10.0.0.1/x", {"check": CheckConfig(mode="ttl")}),
        ("kubernetes://x", {"check": CheckConfig(mode="ttl")}),
    ],
    ids=str,
)
def test_an_option_that_would_do_nothing_is_refused(url, fields):
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        open_registry(url, RegistryConfig(**fields))


def test_a_token_may_be_given_beside_options():
    with pytest.raises(ConfigurationError, match="token_file"):
        open_registry("consul://host", RegistryConfig(token_file="x"), token="y")  # noqa: S106


@pytest.mark.parametrize("url", ["consul://me:secret@host", "ftp://me:secret@host"])
def test_a_password_in_the_url_is_refused_and_not_shown(url):
    with pytest.raises(ConfigurationError) as caught:
        open_registry(url)
    assert "secret" not in str(caught.value)


@pytest.mark.shell
def test_importing_the_room_brings_neither_aiohttp_nor_py_consul():
    code = (
        "import sys, fingerpost.registry as r; r.open_registry; "
        "print(sorted({'aiohttp', 'consul', 'requests'} & set(sys.modules))); r.ConsulRegistry"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("make", "old", "new"),
    [
        (open_registry, "options", "registry_config"),
        (ConsulRegistry, "options", "registry_config"),
        (ConsulRegistry, "watch", "watch_config"),
        (ConsulRegistry, "admission", "address_policy"),
        (ZooKeeperRegistry, "check", "check_config"),
        (StaticRegistry, "watch", "watch_config"),
    ],
)
def test_an_old_argument_is_answered_by_its_new_name(make, old, new):
    with pytest.raises(ConfigurationError, match=f"{old}=.*{new}"):
        make("consul://127.0.0.1", **{old: None})


@pytest.mark.parametrize("name", ["Admission", "Reason", "RegistryOptions"])
def test_an_old_class_is_answered_by_its_new_name(name):
    with pytest.raises(ImportError, match=f"{name} is called [A-Z]"):
        getattr(fingerpost.registry, name)


@pytest.mark.parametrize("url", ["consul://", "CONSUL+https://", "http://", "consul:///"])
def test_a_url_without_a_host_is_named_as_it_was_given(url):
    with pytest.raises(ConfigurationError, match="names no host: write .*://HOST:PORT") as caught:
        open_registry(url)
    assert repr(url) in str(caught.value)
