"""File names that are not UTF-8, in JSON and back."""

from __future__ import annotations

import base64
import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.deploy.file_names import name_from_json, name_to_json, printable_name


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"a.png", {"key": "a.png"}),
        ("käse.png".encode(), {"key": "käse.png"}),
        (rb"\xe9.png", {"key": r"\xe9.png"}),
        (b"\xe9.png", {"key": r"\xe9.png", "key_base64": "6S5wbmc="}),
        (b"\xff\xfe/\x80", {"key": r"\xff\xfe/\x80", "key_base64": "//4vgA=="}),
    ],
)
def test_the_fields(raw: bytes, fields: dict[str, str]) -> None:
    assert name_to_json(os.fsdecode(raw), "key") == fields


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_name_comes_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    document = json.loads(msgspec.json.encode(name_to_json(name, "key")))
    assert name_from_json(document["key"], document.get("key_base64")) == name
    if "key_base64" in document:
        assert base64.b64decode(document["key_base64"]) == raw
    printable_name(name).encode()
