"""The part of a worker's limits that each of its front ends gets, and what goes with several."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig

__all__ = ["MAX_FRONT_ENDS", "check_front_ends", "config_of_one"]

MAX_FRONT_ENDS: Final = 64
"""More would not help any model: see docs/decisions/0039-front-ends.md."""


def check_front_ends(config: WorkerConfig) -> None:
    """Check what a worker with several front ends cannot do.

    Raises:
        ConfigurationError: it names both options.
    """
    count = config.front_ends
    if not 1 <= count <= MAX_FRONT_ENDS:
        raise ConfigurationError(f"front_ends is {count}: it must be 1 to {MAX_FRONT_ENDS}")
    if count == 1:
        return
    if sys.platform != "linux":
        raise ConfigurationError(
            f"--front-ends {count} needs Linux, and this is {sys.platform}: leave it out"
        )
    given = {
        "--grpc-port": config.grpc_port is not None,
        "--zmq-port": config.zmq.port is not None,
        "--uds": config.uds is not None,
        "--shared-memory": config.shared_memory,
        "--admin-token-file or FINGERPOST_ADMIN_TOKEN": config.models.admin_token is not None,
        "--callers": config.callers.policy is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise ConfigurationError(
                f"--front-ends {count} and {option} do not work together: leave one of them out"
            )
    if config.batching.max_queue < count:
        raise ConfigurationError(
            f"--max-queue {config.batching.max_queue} is less than --front-ends {count}, each of "
            "which has its part of the queue: give more of the first or fewer of the second"
        )


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
