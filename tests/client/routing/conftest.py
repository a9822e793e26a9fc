"""Fixtures for tests that simulate clusters; see `tests.support.simulations`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from benchmarks.routing.scenario import Result, Scenario
from tests.support.simulations import Simulations


def _scenarios(item: pytest.Item) -> Iterable[Scenario]:
    """What a test simulates; nothing where it is not decorated by `simulates`."""
    if not isinstance(item, pytest.Function) or not hasattr(item.function, "simulates"):
        return ()
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    scenarios: Iterable[Scenario] = item.function.simulates(**parameters)
    return scenarios


@pytest.fixture(scope="module")
def simulations(request: pytest.FixtureRequest) -> Iterator[Simulations]:
    """Simulates in other processes; what the module's selected tests need is begun at once."""
    with Simulations() as simulations:
        for item in request.session.items:
            if getattr(item, "module", None) is request.module:
                for each in _scenarios(item):
                    simulations.begin(each)
        yield simulations


@pytest.fixture
def results(request: pytest.FixtureRequest, simulations: Simulations) -> list[Result]:
    """The results of what the test simulates."""
    return [simulations.begin(each).result() for each in _scenarios(request.node)]
