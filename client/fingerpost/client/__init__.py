"""The Python API for programs that have images: resolve, route, stream.

`Client` is the asynchronous client, and `SyncClient` its counterpart for threads. All that a
program passes to them, gets from them or catches can be imported from here.
"""

import importlib
from typing import TYPE_CHECKING, Final

from fingerpost import errors as _errors
from fingerpost.client.client import Client
from fingerpost.client.config import ClientConfig
from fingerpost.client.dispatch.connect import ConnectedWorker
from fingerpost.client.images.load import ImageSource
from fingerpost.client.result import Result, Stats
from fingerpost.client.routing import (
    EjectionConfig,
    HotColdConfig,
    ProbingConfig,
    RetryConfig,
    RoutingConfig,
    SlowStartConfig,
)
from fingerpost.client.source import DEFAULT_PROXY
from fingerpost.client.streaming.concurrency import Concurrency
from fingerpost.client.streaming.options import OnError
from fingerpost.client.sync import SyncClient
from fingerpost.client.wire import Prediction, TimingsMs
from fingerpost.errors import *  # noqa: F403
from fingerpost.registry import (
    CheckConfig,
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Registry,
    RegistryConfig,
    Snapshot,
)
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from fingerpost.client.metrics import ClientMetrics
    from fingerpost.client.tasks.results import (
        Box,
        Classification,
        Detection,
        Embedding,
        JsonAnswer,
        Multilabel,
        Regression,
        Segmentation,
        TaskResult,
        Tensors,
    )
    from fingerpost.client.tracing import Tracing

__all__ = [
    "DEFAULT_PROXY",
    "Box",
    "CheckConfig",
    "Classification",
    "Client",
    "ClientConfig",
    "ClientMetrics",
    "Concurrency",
    "ConnectedWorker",
    "Detection",
    "EjectionConfig",
    "Embedding",
    "HotColdConfig",
    "ImageSource",
    "Instance",
    "JsonAnswer",
    "LoadReport",
    "ModelInfo",
    "ModelReference",
    "Multilabel",
    "OnError",
    "Prediction",
    "ProbingConfig",
    "Registry",
    "RegistryConfig",
    "Regression",
    "Result",
    "RetryConfig",
    "RoutingConfig",
    "Segmentation",
    "SlowStartConfig",
    "Snapshot",
    "Stats",
    "SyncClient",
    "TaskResult",
    "Tensors",
    "TimingsMs",
    "Tracing",
    "__version__",
]
__all__ += _errors.__all__


# These import prometheus-client and parts of the standard library that take a while, or are needed
# by few.
_LAZY: Final = {
    "ClientMetrics": "fingerpost.client.metrics",
    "Tracing": "fingerpost.client.tracing",
    **dict.fromkeys(
        (
            "Box",
            "Classification",
            "Detection",
            "Embedding",
            "JsonAnswer",
            "Multilabel",
            "Regression",
            "Segmentation",
            "TaskResult",
            "Tensors",
        ),
        "fingerpost.client.tasks.results",
    ),
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
