"""Registries of workers: instances, load reports, snapshots, and watches of them."""

import warnings
from typing import TYPE_CHECKING

from fingerpost import errors
from fingerpost.registry.address_policy import AddressPolicy, RejectionReason
from fingerpost.registry.base import Registration, Registry
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.factory import open_registry
from fingerpost.registry.instance import Instance, ModelInfo, ModelReference, format_address
from fingerpost.registry.load import LOAD_HEADER, LoadReport, WorkerState
from fingerpost.registry.snapshot import Catalog, Snapshot
from fingerpost.registry.version import __version__
from fingerpost.registry.watching.rules import WatchConfig
from fingerpost.registry.watching.self_preservation import SelfPreservationConfig
from fingerpost.registry.watching.watch import Watch

if TYPE_CHECKING:
    from fingerpost.registry.consul.registry import ConsulRegistry

__all__ = [
    "LOAD_HEADER",
    "AddressPolicy",
    "Catalog",
    "CheckConfig",
    "ConsulRegistry",
    "Instance",
    "LoadReport",
    "ModelInfo",
    "ModelReference",
    "RejectionReason",
    "Registration",
    "Registry",
    "RegistryConfig",
    "SelfPreservationConfig",
    "Snapshot",
    "Watch",
    "WatchConfig",
    "WorkerState",
    "__version__",
    "format_address",
    "open_registry",
]

_RENAMED = {
    "Admission": "AddressPolicy",
    "Reason": "RejectionReason",
    "RegistryOptions": "RegistryConfig",
}


def __getattr__(name: str) -> object:
    # On first use (PEP 562), because it imports aiohttp, and most users need only the types.
    if name == "ConsulRegistry":
        from fingerpost.registry.consul.registry import ConsulRegistry

        return ConsulRegistry
    if name in _RENAMED:
        raise ImportError(f"{__name__}.{name} is called {_RENAMED[name]} now")
    if name in errors.__all__:  # their place in release 0.1.0
        warnings.warn(
            f"import {name} from fingerpost.errors, no longer from {__name__}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
