"""What is known about workers: instances, load reports, snapshots, and the registries."""

from fingerpost.registry.base import Registration, Registry
from fingerpost.registry.errors import *  # noqa: F403
from fingerpost.registry.errors import __all__ as _errors
from fingerpost.registry.instance import Instance, ModelInfo, ModelReference, format_address
from fingerpost.registry.load import LOAD_HEADER, LoadReport, WorkerState
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.watch import Watch
from fingerpost.registry.watch_rules import WatchConfig

__all__ = [
    "LOAD_HEADER",
    "Catalog",
    "Instance",
    "LoadReport",
    "ModelInfo",
    "ModelReference",
    "Registration",
    "Registry",
    "Snapshot",
    "Watch",
    "WatchConfig",
    "WorkerState",
    "format_address",
]
__all__ += _errors
