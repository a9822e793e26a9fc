"""The error tree: what it is on the wire, and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fingerpost.client
import fingerpost.registry
from fingerpost import errors
from fingerpost.errors import (
    BadAnswer,
    CallerError,
    FingerpostError,
    Overloaded,
    PeerError,
    error_from_json,
)
from tests.support.optional import not_none

ALL = [
    getattr(errors, name)
    for name in errors.__all__
    if isinstance(getattr(errors, name), type)
    and issubclass(getattr(errors, name), FingerpostError)
]
# Classes without a code of their own only group others.
LEAVES = [each for each in ALL if "code" in vars(each)]


def test_every_public_name_exists():
    for module in (fingerpost.registry, fingerpost.client, errors):
        for name in module.__all__:
            assert hasattr(module, name)


def test_clients_find_them_all():
    assert set(errors.__all__) <= set(fingerpost.client.__all__)


def test_where_they_were_until_0_1():
    with pytest.warns(DeprecationWarning, match=r"import NoWorker from fingerpost\.errors"):
        assert fingerpost.registry.NoWorker is errors.NoWorker


def test_every_error_class_is_public():
    found, todo = set(), [FingerpostError]
    while todo:
        each = todo.pop()
        todo += each.__subclasses__()
        if each.__module__.startswith(f"{errors.__name__}.") or each.__module__ == errors.__name__:
            found.add(each)
    assert found == set(ALL)


def test_codes_are_unique():
    codes = [each.code for each in LEAVES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", LEAVES, ids=lambda each: each.code)
def test_an_error_comes_back_from_its_json_as_itself(error):
    made = error("what was wrong: 'x'; do y", retry_after_s=1.5)
    back = error_from_json(made.to_json(), status=made.status, retry_after_s=1.5)
    assert type(back) is error
    assert str(back) == "what was wrong: 'x'; do y"
    assert (back.retryable, back.retry_after_s) == (made.retryable, 1.5)


@pytest.mark.parametrize("error", ALL, ids=lambda each: each.__name__)
def test_the_docstrings_tree_tells_the_truth(error):
    lines = [
        line
        for line in not_none(errors.__doc__).splitlines()
        if f" {error.__name__} " in f"{line} "
    ]
    assert len(lines) == 1
    words = lines[0].split(error.__name__)[1].split()
    if words and words[0].isdigit():
        assert (int(words[0]), words[1]) == (error.status, error.code)
    assert 400 <= error.status < 600
    assert not (issubclass(error, CallerError) and error.retryable)


@pytest.mark.parametrize(
    ("retryable", "kind"), [(True, PeerError), (False, CallerError)], ids=["retryable", "not"]
)
def test_a_code_of_a_newer_peer_becomes_what_its_retryable_says(retryable, kind):
    body = {"error": {"code": "from_the_future", "message": "m", "retryable": retryable}}
    error = error_from_json(msgspec.json.encode(body), status=499)
    assert type(error) is kind
    assert error.retryable is retryable


def test_what_the_peer_says_of_retrying_wins():
    body = {"error": {"code": Overloaded.code, "message": "m", "retryable": False}}
    assert error_from_json(msgspec.json.encode(body), status=429).retryable is False
    assert Overloaded.retryable is True


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": 7}', b"\xff\xfe", b'{"error":{"code":"x"}}']
)
def test_a_body_that_is_no_error_of_ours_is_a_bad_answer(body):
    error = error_from_json(body, status=502)
    assert type(error) is BadAnswer
    assert "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no 'größe': 猫 \U0001f408", "no 'größe': 猫 \U0001f408"),
        ("two\r\n  lines\tand\u2028more\n", "two lines and more"),
        ("\x1b[31mred\x07 \x00", r"\x1b[31mred\x07 \x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("no UTF-8: \udcff", r"no UTF-8: \udcff"),
    ],
)
def test_a_message_is_one_printable_line(text, told):
    error = PeerError(text)
    assert (error.message, str(error)) == (told, told)
    body = {"error": {"code": "x", "message": text.replace("\udcff", ""), "retryable": True}}
    assert error_from_json(msgspec.json.encode(body), status=500).message.isprintable()


@given(st.text(st.characters()))
def test_whatever_is_said_can_be_printed_and_sent(text):
    error = PeerError(text)
    assert str(error).isprintable()
    assert msgspec.json.decode(error.to_json())["error"]["message"] == error.message
