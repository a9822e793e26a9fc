"""Which versions a policy chooses, and what `versions.toml` may say."""

from __future__ import annotations

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.repository.versions.policy import VersionPolicy, parse_settings
from tests.support.old_spellings import Warned, warned

__all__ = ["warned"]  # a fixture

LATEST = VersionPolicy(latest=1)


@pytest.mark.parametrize(
    ("policy", "there", "wanted"),
    [
        ("latest:1", {1, 2, 10}, {10}),
        ("latest:2", {1, 2, 10}, {10, 2}),
        ("latest:5", {1, 2}, {1, 2}),
        ("latest:1", set(), set()),
        ("specific:2", {1, 2, 3}, {2}),
        ("specific:1, 3", {1, 2, 3}, {1, 3}),
        ("specific:7", {1, 2}, set()),
        ("all", {1, 2, 3}, {1, 2, 3}),
    ],
)
def test_a_policy_chooses(policy: str, there: set[int], wanted: set[int]) -> None:
    assert VersionPolicy.parse(policy).choose(there) == wanted


@pytest.mark.parametrize(
    "text", ["", "latest", "latest:0", "latest:-1", "latest:x", "specific:", "specific:1,,2", "ALL"]
)
def test_what_is_no_policy_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected latest:N"):
        VersionPolicy.parse(text)


def test_a_settings_file() -> None:
    assert parse_settings(b"", LATEST).policy == LATEST
    read = parse_settings(b'policy = "latest:2"\n[aliases]\nstable = 3\ncanary = 4', LATEST)
    assert read.policy == VersionPolicy(latest=2)
    assert read.aliases == {"stable": 3, "canary": 4}


def test_the_settings_of_release_0_1_0_are_read_and_named_once(warned: Warned) -> None:
    for _ in range(2):
        read = parse_settings(b"[labels]\nstable = 3", LATEST, "models/flowers/versions.toml")
        assert read.aliases == {"stable": 3}
    (line,) = warned()
    assert line.startswith("models/flowers/versions.toml: '[labels]' is the old spelling of")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"policy = latest", "versions.toml"),
        (b'polcy = "all"', "polcy"),
        (b'policy = "newest"', "newest"),
        (b'[aliases]\nstable = "three"', "Expected `int`"),
        (b"[aliases]\nStable = 3", "Stable"),
        (b"[labels]\nStable = 3", "Stable"),
        (b"[labels]\nstable = 3\n[aliases]\nstable = 3", "keep only"),
    ],
)
def test_a_settings_file_that_makes_no_sense_says_why(text: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_settings(text, LATEST)
