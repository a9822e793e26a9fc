"""SPIFFE ids: which are valid, and which certificate is one of a worker."""

from __future__ import annotations

import pytest

from fingerpost.security.tls.spiffe import (
    spiffe_ids,
    worker_id,
    worker_problem,
    wrong_identity,
)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://example.org/../fingerpost/worker/flowers",
        "spiffe://example.org/fingerpost/./worker",
        "spiffe://example.org//fingerpost",
        "spiffe://example.org/fingerpost/worker/flowers?x=1",
        "spiffe://example.org/fingerpost/worker/flowers/",
        "spiffe://Example.org/fingerpost",
        "spiffe://user@example.org/fingerpost",
        "spiffe://example.org:80/fingerpost",
        "https://example.org/fingerpost/worker/flowers",
        "spiffe://example.org/" + "a" * 2048,
        "spiffe://example.org/fingerpost/worker/flowers\n",
    ],
)
def test_leaves_out_what_is_not_a_valid_id(uri):
    assert spiffe_ids({"subjectAltName": (("URI", uri),)}) == ()


def test_only_uris_are_ids():
    uri = worker_id("example.org", "flowers")
    assert spiffe_ids({"subjectAltName": (("DNS", uri), ("URI", uri))}) == (uri,)
    assert spiffe_ids({}) == ()


@pytest.mark.parametrize(
    ("ids", "good"),
    [
        (("spiffe://example.org/fingerpost/worker/flowers",), True),
        (("spiffe://example.org/fingerpost/worker/digits",
          "spiffe://example.org/fingerpost/worker/flowers"), True),
        (("spiffe://example.org/fingerpost/worker/flowers2",), False),
        (("spiffe://other.org/fingerpost/worker/flowers",), False),
        (("spiffe://example.org/fingerpost/proxy",), False),
        ((), False),
    ],
)  # fmt: skip
def test_a_worker_s_certificate_names_its_service(ids, good):
    problem = worker_problem(ids, "example.org", "flowers")
    assert (problem == "") is good
    assert good or "spiffe://example.org/fingerpost/worker/flowers" in problem


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ((), ""),
        (("spiffe://example.org/host-7",), ""),
        (("spiffe://example.org/fingerpost/worker/flowers",), ""),
        (("spiffe://a/fingerpost/worker/cats", "spiffe://b/fingerpost/worker/flowers"), ""),
        (
            ("spiffe://example.org/fingerpost/worker/cats",),
            "issue it one with the URI spiffe://example.org/fingerpost/worker/flowers",
        ),
        (("spiffe://example.org/fingerpost/proxy",), "it names spiffe://example.org/finger"),
    ],
)
def test_a_worker_sees_by_itself_that_nobody_takes_it_for_one_of_its_service(ids, says):
    problem = wrong_identity(ids, "flowers")
    assert (problem != "") is (says != "")
    assert says in problem


def test_any_service_is_not_told_as_a_star():
    problem = worker_problem(("spiffe://example.org/fingerpost/proxy",), "example.org", "*")
    assert "*" not in problem
    assert problem.endswith("spiffe://example.org/fingerpost/worker/SERVICE")
