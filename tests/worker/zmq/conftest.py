"""A worker service with a ZeroMQ port for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.rig import Rig, serving


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving(zmq=True) as rig:
        yield rig
        assert rig.rif == 0
