"""The part of a worker's limits that each of its front ends gets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig

__all__ = ["config_of_one"]


def config_of_one(config: WorkerConfig, *, memory_bytes: int) -> WorkerConfig:
    """The settings of one front end: its part of what limits the whole worker.

    Limits of one address (`max_per_client`, `max_uploads_per_client`) hold in each front end: the
    connections of a client are not spread evenly, and a part would refuse it too early.

    Args:
        memory_bytes: most bytes of bodies in the whole worker.
    """
    count, requests = config.front_ends, config.requests
    most = config.connections.max_connections
    return replace(
        config,
        front_ends=1,
        batching=replace(config.batching, max_queue=_part(config.batching.max_queue, count)),
        requests=replace(
            requests,
            max_in_flight=_part(requests.max_in_flight, count),
            max_memory_bytes=max(requests.max_bytes, memory_bytes // count),
        ),
        connections=replace(
            config.connections, max_connections=None if most is None else _part(most, count)
        ),
        models=replace(config.models, decode_threads=_part(config.models.decode_threads, count)),
    )


def _part(whole: int, count: int) -> int:
    """The part of each, rounded up, so that none has nothing."""
    return -(-whole // count)
