"""The allow-list: nothing that means something in a URL or a path gets through."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import InvalidName
from fingerpost.registry.names import (
    check_alias,
    check_id,
    check_service,
    check_version,
    split_reference,
)

CHECKS = [check_service, check_id, check_version, check_alias]

TABLE = [
    (check_service, ["flowers", "a", "0", "a-b", "x" * 63], ["A", "a_b", "a.b", "x" * 64]),
    (check_id, ["a", "A.b_c-9", "x" * 128], ["x" * 129, "a..b", "_service_maintenance", "a:b"]),
    (check_version, ["0", "3", "007", "9" * 18], ["9" * 19, "-1", "1.0", "v3", "٣"]),
    (check_alias, ["stable", "canary", "a1", "a-1"], ["1a", "Stable", "x" * 64, "a_b"]),
]
ALWAYS_WRONG = [
    "", " ", ".", "..", "-a", "a-", "a\n", "a b", "a/b", "../../kv/secret", "a?b", "a#b", "a%2f",
    "é", "a\0", "a@b",
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, good, _ in TABLE for name in good]
)
def test_a_good_name_is_returned(check, name):
    assert check(name) == name


@pytest.mark.parametrize(
    ("check", "name"),
    [(check, name) for check, _, bad in TABLE for name in [*bad, *ALWAYS_WRONG]],
)
def test_a_bad_name_is_refused_with_its_value(check, name):
    with pytest.raises(InvalidName) as caught:
        check(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@given(name=st.text())
def test_what_passes_means_itself_in_a_url_and_in_a_path(check, name):
    try:
        check(name)
    except InvalidName:
        return
    assert urllib.parse.quote(name, safe="") == name
    assert ".." not in name
    assert name not in (".", "")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("flowers", ("flowers", None, None)),
        ("flowers@3", ("flowers", "3", None)),
        ("flowers@stable", ("flowers", None, "stable")),
    ],
)
def test_a_reference_is_split(text, parts):
    assert split_reference(text) == parts


@pytest.mark.parametrize("text", ["", "@3", "flowers@", "flowers@3@4", "flowers@V3", "flowers@²"])
def test_a_bad_reference_is_refused(text):
    with pytest.raises(InvalidName):
        split_reference(text)
