"""Tenants and classes: which flow a request belongs to."""

from __future__ import annotations

import pytest

from fingerpost.errors import ConfigurationError, Forbidden, InvalidRequest
from fingerpost.security.grant import NO_LIMITS, Grant
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flows, parse_classes


def test_a_request_without_grant_and_class_is_of_the_default_flow() -> None:
    flows = Flows()
    assert flows.of(NO_LIMITS, None) is DEFAULT_FLOW
    assert flows.of(NO_LIMITS, "interactive") is DEFAULT_FLOW
    assert flows.of(Grant(), None) is DEFAULT_FLOW


def test_there_is_one_flow_for_each_tenant_and_class() -> None:
    flows = Flows()
    first = flows.of(Grant(tenant="acme", weight=2), None)
    assert (first.tenant, first.rank, first.weight) == ("acme", 0, 2)
    assert flows.of(Grant(tenant="acme", weight=2), "interactive") is first
    batch = flows.of(Grant(tenant="acme", weight=2), "batch")
    assert (batch.rank, batch is first) == (1, False)
    assert flows.of(Grant(tenant="acme", weight=3), None).weight == 3


def test_the_classes_of_a_grant_are_kept() -> None:
    flows = Flows()
    only_batch = Grant(tenant="nightly", classes=("batch",))
    assert flows.of(only_batch, None).rank == 1
    with pytest.raises(Forbidden, match=r"'nightly' may not use class 'interactive'.* batch"):
        flows.of(only_batch, "interactive")
    with pytest.raises(InvalidRequest, match=r"class 'urgent' is not known.* interactive, batch"):
        flows.of(only_batch, "urgent")
    with pytest.raises(Forbidden, match=r"may use the classes urgent.*--classes"):
        flows.of(Grant(tenant="a", classes=("urgent",)), None)
    with pytest.raises(Forbidden, match=r"may use the classes \(none\)"):
        flows.of(Grant(tenant="a", classes=()), None)


def test_flows_of_many_tenants_are_forgotten() -> None:
    flows = Flows()
    for number in range(10_000):
        flows.of(Grant(tenant=str(number)), None)
    assert len(flows._flows) <= 4096


def test_classes_are_read_with_their_floors() -> None:
    assert [str(each) for each in parse_classes("urgent, interactive:0.2,batch:0.05")] == [
        "urgent",
        "interactive:0.2",
        "batch:0.05",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not a valid class"),
        ("Batch", "'Batch' is not a valid class"),
        ("a,b:x", "the floor 'x' is not a share"),
        ("a,b:1", "the floor '1' is not a share"),
        ("a,b:-0.1", "not a share"),
        ("a,b:nan", "the floor 'nan' is not a share"),
        ("a,b,a", "a name is there twice"),
        ("a:0.1,b", "the first class"),
        ("a,b:0.5,c:0.5", "add up to 1"),
    ],
)
def test_classes_that_are_not_valid_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse_classes(text)
