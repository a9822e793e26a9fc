"""A backend whose runs wait for its gate, and an engine around it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fingerpost.worker.engine.engine import Engine
from tests.support.engines import (
    GatedBackend,
    engine_of,
)


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
async def engine(backend: GatedBackend) -> AsyncIterator[Engine]:
    async with engine_of(backend) as engine:
        yield engine
        backend.gate.set()
