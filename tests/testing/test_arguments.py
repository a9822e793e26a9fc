"""Arguments of `fingerpost.testing` that are not valid: an error that names the value."""

from __future__ import annotations

from typing import Any

import pytest

from fingerpost.errors import ConfigurationError, ModelFailed
from fingerpost.testing.behaviour import Behaviour
from fingerpost.testing.models import FakeModels


@pytest.mark.parametrize(
    ("models", "aliases", "message"),
    [
        ("flowers", None, "models is 'flowers': give a dict"),
        ({"flowers": 3}, None, "'flowers' is of type int: give a label"),
        ({"flowers": []}, None, r"answers \[\]: give a list of \(label, score\)"),
        ({"flowers": ["daisy", "rose"]}, None, "give a list of"),
        ({"flowers": [("daisy", "much")]}, None, "give a list of"),
        ({"flowers": [(1, 0.5)]}, None, "give a list of"),
        ({"flowers": b"daisy"}, None, "give a list of"),
        ({"flowers": "daisy"}, ["stable"], r"aliases is \['stable'\]: give a dict"),
        ({"flowers": "daisy"}, {"flowers": "stable"}, "aliases of 'flowers' is 'stable'"),
        ({"flowers": "daisy"}, {"flowers": {"stable": 3}}, "there is only flowers@1"),
    ],
)
def test_models(models: Any, aliases: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FakeModels(models, aliases)


def test_a_version_may_be_a_number() -> None:
    models = FakeModels({"flowers@3": "daisy"}, {"flowers": {"stable": 3}})  # type: ignore[dict-item]
    assert models.aliases("flowers") == {"stable": 3}


def test_behaviour() -> None:
    behaviour = Behaviour(FakeModels({"flowers": "daisy"}))
    wrong: Any = "x"
    for error, times, message in (
        (wrong, None, "error is 'x': give an exception"),
        (ModelFailed, None, "give an exception"),
        (ModelFailed("?"), wrong, "times is 'x'"),
        (ModelFailed("?"), 0, "times is 0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            behaviour.fail(error, times)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="delay_s is 'x'"):
        behaviour.delay_s = wrong
    assert behaviour.answer("flowers", 1, b"") == (("daisy", 1.0),)
