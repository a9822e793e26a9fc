"""Metrics that every process of Fingerpost has: what it is, and what it uses."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client import Gauge, ProcessCollector

from fingerpost.registry.refusals import RefusedConnections
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["add_process_metrics"]


def add_process_metrics(registry: CollectorRegistry) -> None:
    """Add `process_*` (memory, processor time, descriptors), the build and refused connections.

    `process_*` are prometheus_client's, read from `/proc` at each scrape; elsewhere there are none.
    """
    ProcessCollector(registry=registry)
    registry.register(RefusedConnections())
    Gauge(
        "fingerpost_build_info",
        "1; the labels say what runs",
        ["version", "python"],
        registry=registry,
    ).labels(__version__, platform.python_version()).set(1)
