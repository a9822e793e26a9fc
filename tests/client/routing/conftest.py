"""Fixtures for tests that simulate clusters; see `tests.support.simulations`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from benchmarks.routing.scenario import Result, Scenario
from tests.support.parallel import folder_of
from tests.support.simulations import Simulations

_SIMULATIONS = pytest.StashKey[Simulations]()


def _scenarios(item: pytest.Item) -> Iterable[Scenario]:
    """What a test simulates; nothing where it is not decorated by `simulates`."""
    if not isinstance(item, pytest.Function) or not hasattr(item.function, "simulates"):
        return ()
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    scenarios: Iterable[Scenario] = item.function.simulates(**parameters)
    return scenarios


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin at once what the selected tests simulate: it runs while other tests wait."""
    scenarios = [each for item in session.items for each in _scenarios(item)]
    if scenarios and not session.config.option.collectonly:
        folder, several = folder_of(session.config)
        simulations = session.config.stash[_SIMULATIONS] = Simulations(folder, several=several)
        simulations.begin(scenarios)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no process behind."""
    if _SIMULATIONS in session.config.stash:
        session.config.stash[_SIMULATIONS].close()


@pytest.fixture
def results(request: pytest.FixtureRequest) -> list[Result]:
    """The results of what the test simulates."""
    simulations = request.config.stash[_SIMULATIONS]
    return [simulations.result(each) for each in _scenarios(request.node)]
