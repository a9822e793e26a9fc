"""What the room offers, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from fingerpost import errors

PROGRAM = """
import os, sys
before = os.times().user
import fingerpost.client
spent = os.times().user - before
print(spent, *sorted({each.partition(".")[0] for each in sys.modules}))
"""


MODULES = [
    "fingerpost.client",
    "fingerpost.client.routing",
    "fingerpost.client.tracing",
    "fingerpost.client.adapters.aiohttp",
    "fingerpost.client.adapters.batch",
    "fingerpost.client.adapters.httpx",
    pytest.param("fingerpost.client.adapters.torch", marks=pytest.mark.frameworks),
]


@pytest.mark.parametrize("module", MODULES)
def test_public_names(module):
    room = importlib.import_module(module)
    assert len(set(room.__all__)) == len(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)


def test_public_names_of_the_room():
    room = importlib.import_module("fingerpost.client")
    assert set(room.__all__) - set(errors.__all__) == {
        "DEFAULT_PROXY",
        "Box",
        "Classification",
        "Detection",
        "Embedding",
        "Multilabel",
        "Regression",
        "Segmentation",
        "TaskResult",
        "Tensors",
        "CheckConfig",
        "Client",
        "ClientConfig",
        "ClientMetrics",
        "Concurrency",
        "ImageSource",
        "Instance",
        "JsonAnswer",
        "ConnectedWorker",
        "LoadReport",
        "ModelInfo",
        "ModelReference",
        "OnError",
        "Prediction",
        "Registry",
        "RegistryConfig",
        "EjectionConfig",
        "HotColdConfig",
        "ProbingConfig",
        "Result",
        "RetryConfig",
        "RoutingConfig",
        "Snapshot",
        "SlowStartConfig",
        "Stats",
        "SyncClient",
        "TimingsMs",
        "Tracing",
        "__version__",
    }


@pytest.mark.alone
@pytest.mark.shell
def test_import_is_quick_and_pulls_in_no_framework():
    spent = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
        )
        seconds, *modules = done.stdout.split()
        spent.append(float(seconds))
        unwanted = {
            "tensorflow", "numpy", "PIL", "consul", "requests", "opentelemetry", "prometheus_client"
        }  # fmt: skip
        assert not unwanted & set(modules)
    assert min(spent) < 0.5
