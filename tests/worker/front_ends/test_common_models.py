"""What is registered of several front ends."""

from __future__ import annotations

from fingerpost.worker.front_ends.common_models import common_models
from fingerpost.worker.front_ends.messages import Served


def served(name: str, *versions: str, **aliases: str) -> Served:
    return Served(name, list(versions), aliases, {"of": name})


def test_only_what_all_serve_is_registered() -> None:
    found = common_models(
        [
            [served("a", "3", "2", stable="2", new="3"), served("b", "1"), served("c", "2")],
            [served("a", "2", stable="2", new="2"), served("c", "1")],
        ]
    )
    assert set(found) == {"a"}
    info, meta = found["a"]
    assert (info.versions, info.aliases, meta) == (("2",), {"stable": "2"}, {"of": "a"})


def test_one_alone_says_it_all() -> None:
    info, _ = common_models([[served("a", "3", "2", new="3")]])["a"]
    assert (info.versions, info.aliases) == (("3", "2"), {"new": "3"})
