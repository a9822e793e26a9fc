"""Instances, models and references to them."""

from __future__ import annotations

import pytest

from fingerpost.errors import InvalidInstance, InvalidName
from fingerpost.registry import Instance, ModelInfo, ModelReference, format_address

FLOWERS = ModelInfo(name="flowers", versions=("3", "2"), aliases={"stable": "2", "canary": "3"})


def instance(**fields):
    given = {
        "id": "flowers-10.0.0.1-8501-x7",
        "service": "flowers",
        "host": "10.0.0.1",
        "ports": {"http": 8501},
        "models": (FLOWERS,),
    }
    return Instance(**given | fields)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("flowers", True),
        ("flowers@3", True),
        ("flowers@2", True),
        ("flowers@1", False),
        ("flowers@stable", True),
        ("flowers@beta", False),
        ("cats", False),
        ("cats@3", False),
    ],
)
def test_which_references_an_instance_serves(text, wanted):
    reference = ModelReference.parse(text)
    assert str(reference) == text
    assert instance().serves(reference) is wanted


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1:8501"),
        ("gpu-7.example", "gpu-7.example:8501"),
        ("GPU7", "GPU7:8501"),
        ("::1", "[::1]:8501"),
        ("2001:db8::7", "[2001:db8::7]:8501"),
    ],
)
def test_addresses(host, address):
    assert instance(host=host).address == address
    assert instance(host=host).url == f"http://{address}"
    assert format_address(host, 8501) == address


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "not a host!"},
        {"host": ""},
        {"host": "0.0.0.0"},  # noqa: S104 (refused)
        {"host": "::"},
        {"host": "999.1.1.1"},
        {"host": "1234"},
        {"host": "-a.example"},
        {"host": "a..b"},
        {"host": "a/b"},
        {"host": "a:80"},
        {"host": "user@a"},
        {"host": "x" * 64},
        {"host": "a." * 127 + "a"},
        {"ports": {}},
        {"ports": {"rpc": 1}},
        {"ports": {"http": 0}},
        {"ports": {"http": 65536}},
        {"ports": {"http": 1, "rpc": -1}},
        {"weight": 0},
        {"weight": 65536},
        {"models": ()},
    ],
    ids=str,
)
def test_an_instance_that_makes_no_sense_is_refused(fields):
    with pytest.raises(InvalidInstance, match="flowers-10"):
        instance(**fields)


@pytest.mark.parametrize("fields", [{"id": "a/b"}, {"service": "../x"}])
def test_names_are_checked(fields):
    with pytest.raises(InvalidName):
        instance(**fields)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": "Flowers", "versions": ("1",)}, InvalidName),
        ({"name": "flowers", "versions": ("v1",)}, InvalidName),
        ({"name": "flowers", "versions": ("1",), "aliases": {"Stable": "1"}}, InvalidName),
        ({"name": "flowers", "versions": ("1",), "aliases": {"stable": "2"}}, InvalidInstance),
    ],
    ids=str,
)
def test_a_model_that_makes_no_sense_is_refused(fields, error):
    with pytest.raises(error):
        ModelInfo(**fields)
