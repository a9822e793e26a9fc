"""Where a client looks up workers, from what it was given."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from fingerpost.client import (
    DEFAULT_PROXY,
    Client,
    ClientConfig,
    ConfigurationError,
    RegistryConfig,
    SyncClient,
)
from fingerpost.client.source import Source
from fingerpost.registry import ConsulRegistry
from fingerpost.registry.several.registry import SeveralRegistries
from fingerpost.registry.static import StaticRegistry

A, B = "http://proxy-a:12480", "https://proxy-b:443"


def proxies(*sources):
    found = Source.of(sources)
    assert found.registry is None
    return [str(each) for each in found.proxies]


def registry(*sources, **keywords):
    found = Source.of(sources, **keywords)
    assert found.registry is not None
    assert not found.proxies
    return found.registry._registry, found.registry._owned


def test_proxies():
    assert proxies() == [DEFAULT_PROXY]
    assert proxies(A) == proxies([A]) == [A]
    assert proxies("proxy-a:12480", "[::1]:12480") == [A, "http://[::1]:12480"]
    assert proxies(A, "HTTPS://proxy-b:443") == proxies([A, B]) == proxies((A, B)) == [A, B[:-4]]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("consul://127.0.0.1:8500", ConsulRegistry),
        ("CONSUL+HTTPS://consul:8501", ConsulRegistry),
        ("embedded", ConsulRegistry),
        ("static://127.0.0.1:8000?model=digits", StaticRegistry),
    ],
)
def test_a_registry_by_its_url(url, kind):
    for opened, owned in (registry(url), registry([url]), registry(registry=url)):
        assert isinstance(opened, kind)
        assert owned


def test_several_registries_are_one():
    urls = ["consul://127.0.0.1:8500", "static://127.0.0.1:8000?model=digits"]
    for opened, owned in (registry(urls), registry(*urls), registry(registry=" ".join(urls))):
        assert isinstance(opened, SeveralRegistries)
        assert owned


def test_an_http_url_is_a_proxy_unless_it_is_given_as_the_registry():
    assert proxies("http://127.0.0.1:8500") == ["http://127.0.0.1:8500"]
    assert isinstance(registry(registry="http://127.0.0.1:8500")[0], ConsulRegistry)


def test_a_registry_object_is_not_closed():
    one = StaticRegistry("static://127.0.0.1:8000?model=digits")
    assert registry(one) == registry(registry=one) == (one, False)


@pytest.mark.shell
def test_a_registry_is_opened_with_its_configuration():
    config = RegistryConfig(namespace="vision")
    with pytest.raises(ConfigurationError, match="namespace has an effect only with Consul"):
        Source.of(["static://127.0.0.1:8000?model=digits"], registry_config=config)


@pytest.mark.parametrize(
    ("sources", "keywords", "message"),
    [
        (["proxy"], {}, "'proxy' is not a valid proxy URL"),
        (["etcd://a:1"], {}, "registry URL 'etcd://a:1'"),
        ([A, "consul://a:1"], {}, "proxies alone, or URLs of registries alone, with consul://"),
        (["consul://a:1", A], {}, "a registry was given beside other sources"),
        ([["consul://a:1", "consul://a:1"]], {}, "a registry is given twice"),
        ([A], {"registry": "consul://a:1"}, "both proxies and a registry"),
        ([[]], {}, "an empty list of proxies"),
    ],
)
@pytest.mark.parametrize("client", [Client, SyncClient])
def test_what_is_refused(client, sources, keywords, message):
    with pytest.raises(ConfigurationError, match=message):
        client(*sources, **keywords)


def test_a_client_that_relays_needs_proxies():
    Client([A], config=ClientConfig(relay=True))
    without_proxies: list[tuple[list[str], dict[str, Any]]] = [
        (["consul://a:1"], {}),
        ([], {"registry": "consul://a:1"}),
    ]
    for sources, keywords in without_proxies:
        with pytest.raises(ConfigurationError, match="name the proxies"):
            Client(*sources, config=ClientConfig(relay=True), **keywords)


def test_a_synchronous_client_can_be_pickled_unless_it_holds_a_registry():
    for source in (A, [A, B], "consul://127.0.0.1:8500"):
        copy = pickle.loads(pickle.dumps(SyncClient(source)))  # noqa: S301 - our own
        assert copy._make.args == (source,)
    with pytest.raises(TypeError, match="pass the registry's URL"):
        pickle.dumps(SyncClient(StaticRegistry("static://127.0.0.1:8000?model=digits")))
