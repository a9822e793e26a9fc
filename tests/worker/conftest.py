"""What the worker's tests share."""

from __future__ import annotations

import pytest

from fingerpost.worker.backends.import_order import load_triton_first
from tests.support.colours import Models, build

# Test modules import TensorFlow and PyTorch themselves, in any order.
load_triton_first()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return build(tmp_path_factory.mktemp("models"))
