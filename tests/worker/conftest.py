"""What the worker's tests share."""

from __future__ import annotations

import pytest

from tests.support.colours import Models, build


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return build(tmp_path_factory.mktemp("models"))
