"""The list of services, as a proxy that may be anybody's server answers it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fingerpost.client.proxy_answers import ProxyAnswers, Unlisted
from fingerpost.errors import BadAnswer
from fingerpost.registry.address_policy import AddressPolicy


def services(**more: Any) -> dict[str, Unlisted]:
    entry = {"name": "digits", "instances": 0, "versions": [], "age_s": 0.0, **more}
    body = msgspec.json.encode({"services": [entry]})
    return ProxyAnswers(AddressPolicy()).services(body, "http://proxy:1")


def test_workers_off_the_list_and_why() -> None:
    assert services() == {"digits": Unlisted()}
    found = services(withdrawn=["digits-1"], failing={"digits-2": "10.0.0.2:80: refused"})
    assert found["digits"].withdrawn == ("digits-1",)
    assert found["digits"].failing == {"digits-2": "10.0.0.2:80: refused"}


def test_reasons_of_a_hostile_proxy_are_bounded_and_escaped() -> None:
    hostile = {f"digits-{number}": "\x1b[2J" + 5000 * "A" for number in range(3000)}
    found = services(failing=hostile)["digits"].failing
    assert len(found) == 1000
    assert max(map(len, found.values())) < 600
    assert all(why.startswith(r"\x1b[2JAAA") for why in found.values())


def test_ids_that_are_none_of_ours_are_text() -> None:
    long = "x" * 5000
    found = services(withdrawn=["web 1", "\x1b[2J", long], failing={"../x": "why"})["digits"]
    assert found.withdrawn[:2] == ("web 1", r"\x1b[2J")
    assert len(found.withdrawn[2]) < 200
    assert found.failing == {"../x": "why"}


@pytest.mark.parametrize("failing", [{"a": 1}, ["a"], "a"])
def test_what_is_not_valid_is_an_error_of_that_proxy(failing: object) -> None:
    with pytest.raises(BadAnswer, match="http://proxy:1"):
        services(failing=failing)
