"""Resolve, route, stream: the Python API for programs that have images.

`Client` is the asynchronous one, `SyncClient` its twin for threads. What travels between client,
proxy and worker is in `fingerpost.client.wire`; which worker is picked, in
`fingerpost.client.routing`.
"""

from fingerpost.client.client import DEFAULT_PROXY, Client
from fingerpost.client.config import ClientConfig
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
from fingerpost.client.sync import SyncClient
from fingerpost.errors import *  # noqa: F403
from fingerpost.errors import __all__ as _errors
from fingerpost.registry.version import __version__

__all__ = [
    "DEFAULT_PROXY",
    "Client",
    "ClientConfig",
    "EjectionConfig",
    "HotColdConfig",
    "ImageSource",
    "ProbingConfig",
    "Result",
    "RetryConfig",
    "RoutingConfig",
    "SlowStartConfig",
    "Stats",
    "SyncClient",
    "__version__",
]
__all__ += _errors
