"""What `GET /v1/resolve/{service}` may ask for."""

from __future__ import annotations

import pytest

from fingerpost.errors import InvalidName, InvalidRequest
from fingerpost.proxy.query import ResolveQuery
from fingerpost.registry import ModelReference

GOOD = {
    "a name": ("digits", {}, {}),
    "in the path": ("digits@3", {}, {"version": "3"}),
    "in the query": ("digits", {"version": "3"}, {"version": "3"}),
    "an alias": ("digits", {"alias": "canary"}, {"alias": "canary"}),
    "an empty one": ("digits@3", {"alias": ""}, {"version": "3"}),
}


@pytest.mark.parametrize("case", GOOD)
def test_references(case: str) -> None:
    service, query, wanted = GOOD[case]
    found = ResolveQuery.parse(service, query).reference
    assert found == ModelReference("digits", **wanted)


def test_without_a_query_there_is_an_answer_at_once() -> None:
    query = ResolveQuery.parse("digits", {})
    assert (query.index, query.wait_s, query.count, query.zone) == (0, 20.0, 0, "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("1.5", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert ResolveQuery.parse("digits", {"wait": text}).wait_s == seconds


BAD = {
    "two versions": ("digits@1", {"version": "2"}),
    "version and alias": ("digits", {"version": "2", "alias": "canary"}),
    "a word as version": ("digits", {"version": "canary"}),
    "a number as alias": ("digits", {"alias": "2"}),
    "negative index": ("digits", {"index": "-1"}),
    "digits of another script": ("digits", {"index": "٣"}),
    "index too long": ("digits", {"index": "1" * 20}),
    "count too long": ("digits", {"n": "1" * 7}),
    "no duration": ("digits", {"wait": "soon"}),
    "negative duration": ("digits", {"wait": "-1s"}),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_values(case: str) -> None:
    with pytest.raises(InvalidRequest):
        ResolveQuery.parse(*BAD[case])


def test_wrong_names() -> None:
    with pytest.raises(InvalidName):
        ResolveQuery.parse("Digits!", {})
