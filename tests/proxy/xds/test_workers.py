"""Which workers a client of xDS is told of, and how it connects to them: values alone."""

from __future__ import annotations

from typing import Any

import pytest

from fingerpost.proxy.xds.workers import Client, Target, workers_of
from fingerpost.registry import Instance, ModelInfo, ModelReference
from fingerpost.registry.instance import SCHEME_KEY
from fingerpost.security.tls import TlsConfig

PLAIN = TlsConfig()
CA = TlsConfig(ca="ca.pem")
DOMAIN = TlsConfig(ca="ca.pem", trust_domain="example.org")
CHANGING = TlsConfig(ca="ca.pem", allow_plain=True)


def instance(number: int, *, tls: bool = False, host: str = "") -> Instance:
    return Instance(
        id=f"w{number}",
        service="flowers",
        models=(ModelInfo(name="flowers", versions=("1",)),),
        ports={"http": 8500, "grpc": 8501},
        host=host or f"10.0.0.{number}",
        meta={SCHEME_KEY: "https"} if tls else {},
    )


def told(tls: TlsConfig, *instances: Instance, transport: str = "grpc") -> Any:
    target = Target(ModelReference("flowers"), transport)
    found = workers_of(target, instances, {}, tls)
    return [each.host for each in found.all], found.tls, found.names


SPIFFE = "spiffe://example.org/fingerpost/worker/flowers"


@pytest.mark.parametrize(
    ("tls", "secure", "plain", "found"),
    [
        (PLAIN, 0, 0, ([], False, ())),
        (PLAIN, 0, 2, (["10.0.0.1", "10.0.0.2"], False, ())),
        (CA, 0, 0, ([], True, ())),
        (CA, 2, 0, (["10.0.0.1", "10.0.0.2"], True, ("10.0.0.1", "10.0.0.2"))),
        (DOMAIN, 1, 0, (["10.0.0.1"], True, (SPIFFE,))),
        (DOMAIN, 0, 0, ([], True, (SPIFFE,))),
        (CHANGING, 0, 0, ([], False, ())),
        (CHANGING, 1, 2, (["10.0.0.2", "10.0.0.3"], False, ())),
        (CHANGING, 2, 2, (["10.0.0.1", "10.0.0.2"], True, ("10.0.0.1", "10.0.0.2"))),
    ],
)
def test_a_cluster_is_of_one_kind(
    tls: TlsConfig, secure: int, plain: int, found: tuple[Any, ...]
) -> None:
    workers = [instance(number + 1, tls=number < secure) for number in range(secure + plain)]
    assert told(tls, *workers) == found
    assert told(tls, *reversed(workers)) == found


def test_a_host_that_is_a_name_is_left_out() -> None:
    """Clients of gRPC, and Envoys, refuse the whole list."""
    workers = [instance(1, host="worker-1.example.org"), instance(2), instance(3, host="fd00::3")]
    assert told(PLAIN, *workers)[0] == ["10.0.0.2", "fd00::3"]


def test_an_envoy_is_told_of_workers_without_tls_alone() -> None:
    workers = [instance(1, tls=True), instance(2)]
    assert told(CHANGING, *workers, transport="http") == (["10.0.0.2"], False, ())


def test_what_a_client_may_use() -> None:
    assert Client().may_use("flowers")
    assert Client(models=frozenset({"flowers"})).may_use("flowers")
    assert not Client(models=frozenset()).may_use("flowers")
