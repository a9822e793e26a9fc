"""A policy of the user's own, from the setting to the images, in the real client."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from fingerpost.client.routing import POLICIES, Candidate, Policy, RoutingConfig, make_policy
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

PAGE = Path(__file__).parents[3] / "docs/routing.md"
C = TypeVar("C", bound=Candidate)


class Alphabetical(Policy):
    """The worker with the first id, so that what it was given shows in what it picked."""

    def __init__(self, config: RoutingConfig) -> None:
        self.config = config
        self.seen: list[list[str]] = []
        self.reports: Counter[str] = Counter()

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        self.seen.append([each.id for each in candidates])
        return min(candidates, key=lambda each: each.id)

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        assert candidate.load_report is not None
        self.reports[candidate.id] += 1


async def test_a_class_as_policy_picks_every_worker_and_is_left_with_the_usable_ones(cluster):
    made = []

    def make(config: RoutingConfig) -> Policy:
        made.append(Alphabetical(config))
        return made[-1]

    workers = await cluster.workers("b", "a", "c")
    routing = RoutingConfig(policy=make)
    client = await cluster.client(*workers, routing=routing)
    assert {(await client.classify(b"1", "digits")).worker for _ in range(20)} == {"a"}
    await workers[1].server.stop()
    results = [await client.classify(b"1", "digits") for _ in range(20)]
    assert {each.worker for each in results} == {"b"}
    assert results[0].retried == ("unreachable",)
    [policy] = made
    assert policy.config is routing
    assert policy.seen[0] == ["a", "b", "c"]
    assert policy.seen[-1] == ["b", "c"], "an ejected worker is not a candidate"
    assert policy.reports["a"]
    assert policy.reports["b"]


async def test_the_policy_of_the_documentation(cluster):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.partition("\n\n\nrouting =")[0], names)  # noqa: S102
    preferred: Callable[[set[str]], Policy] = names["Preferred"]
    workers = await cluster.workers("one", "two", "three", "four")
    routing = RoutingConfig(policy=lambda _: preferred({"two", "four"}))
    client = await cluster.client(*workers, routing=routing)
    results = [await client.classify(b"1", "digits") for _ in range(40)]
    assert set(Counter(each.worker for each in results)) == {"two", "four"}


async def test_what_a_policy_raises_goes_to_the_caller(cluster):
    class Broken(Alphabetical):
        def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
            raise LookupError("no idea")

    client = await cluster.client(
        *await cluster.workers("one", "two"), routing=RoutingConfig(policy=Broken)
    )
    with pytest.raises(LookupError, match="no idea"):
        await client.classify(b"1", "digits")


@pytest.mark.parametrize(
    ("made", "missing"),
    [(3, "pick"), (type("Half", (), {"pick": lambda *_: None})(), "reported")],
)
async def test_a_function_that_makes_something_else_is_an_error(cluster, made, missing):
    client = await cluster.client(
        *await cluster.workers("one"), routing=RoutingConfig(policy=lambda _: made)
    )
    with pytest.raises(ConfigurationError, match=rf"which has no method {missing}\(\)"):
        await client.classify(b"1", "digits")


def test_every_named_policy_can_be_made_by_its_entry():
    config = RoutingConfig()
    for name, factory in POLICIES.items():
        by_name = make_policy(RoutingConfig(policy=name))
        assert type(by_name) is type(make_policy(RoutingConfig(policy=factory)))
        assert make_policy(config) is not make_policy(config)
