"""What a relaying proxy stands for, and what its word means."""

from __future__ import annotations

import pytest
from yarl import URL

from fingerpost.client import Client, ClientConfig, SyncClient
from fingerpost.client.route.relay import RelayRoute
from fingerpost.client.routing import Outcome
from fingerpost.errors import (
    BadAnswer,
    BrokenImage,
    ConfigurationError,
    DeadlineExceeded,
    Draining,
    ModelFailed,
    NoWorker,
    Overloaded,
    RegistryUnreachable,
    Unauthorized,
    UnknownModel,
    UnknownPath,
    UnknownService,
    Unreachable,
)
from fingerpost.registry import Instance, ModelInfo, ModelReference, Snapshot


@pytest.mark.parametrize("kind", [Client, SyncClient])
def test_what_cannot_relay(kind):
    config = ClientConfig(relay=True)
    with pytest.raises(ConfigurationError, match="name the proxies"):
        kind(registry="consul://127.0.0.1:8500", config=config)
    for url in ("http://me:secret@proxy:12480", "http://my_proxy:12480"):
        with pytest.raises(ConfigurationError, match="cannot relay images: use http"):
            kind(url, config=config)


def view(*instances):
    return Snapshot(service="digits", instances=instances, known=True, index=7, taken_at=3.0)


def worker_with(name, **models):
    return Instance(
        id=name,
        service="digits",
        host="10.0.0.1",
        ports={"http": 80},
        models=tuple(ModelInfo(name=each, **fields) for each, fields in models.items()),
    )


def test_a_proxy_serves_what_any_worker_does():
    route = RelayRoute([URL("http://a:1"), URL("http://[::1]:2"), URL("http://a:1")])
    old = worker_with("old", digits={"versions": ("9",), "aliases": {"stable": "9"}})
    new = worker_with("new", digits={"versions": ("10",), "aliases": {"canary": "10"}})
    other = worker_with("other", flowers={"versions": ("1",)}, digits={"versions": ("9",)})
    peers = route.peers(view(old, new, other))
    assert (peers.index, peers.taken_at, peers.known) == (7, 3.0, True)
    assert [each.address for each in peers.instances] == ["a:1", "[::1]:2"]
    assert [each.id for each in peers.instances] == sorted(each.id for each in peers.instances)
    [digits, flowers] = peers.instances[0].models
    assert (digits.versions, flowers.versions) == (("10", "9"), ("1",))
    for text, count in (("digits@10", 2), ("digits@canary", 2), ("digits@8", 0), ("flowers", 2)):
        assert len(peers.matching(ModelReference.parse(text))) == count
    assert route.peers(view()).instances == ()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnknownService(""), Outcome.ABANDONED),
        (UnknownModel(""), Outcome.ABANDONED),
        (Overloaded(""), Outcome.ABANDONED),
        (Draining(""), Outcome.ABANDONED),
        (DeadlineExceeded(""), Outcome.ABANDONED),
        (NoWorker(""), Outcome.REFUSED),
        (RegistryUnreachable(""), Outcome.REFUSED),
        (BrokenImage(""), Outcome.ANSWERED),
        (Unreachable(""), Outcome.FAILED),
        (BadAnswer(""), Outcome.FAILED),
        (ModelFailed(""), Outcome.FAILED),
    ],
)
def test_what_an_error_says_about_the_proxy(error, outcome):
    assert RelayRoute([]).classify_error("a:1", error.status, error) == (outcome, error)


@pytest.mark.parametrize(
    "error", [Unauthorized("off"), UnknownPath("nothing"), BadAnswer("<html>")]
)
@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_who_relays_nothing(error, status):
    outcome, told = RelayRoute([]).classify_error("a:1", status, error)
    assert outcome is Outcome.REFUSED
    assert isinstance(told, Unauthorized)
    assert "a:1 does not relay images" in told.message
