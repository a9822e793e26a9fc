"""How many front ends a worker may have, and what does not go with several."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.zmq_config import ZmqConfig

__all__ = ["MAX_FRONT_ENDS", "check_front_ends"]

MAX_FRONT_ENDS: Final = 64
"""The most front ends of a worker; a higher number is a mistake."""


class _Settings(Protocol):
    """What is looked at of a `WorkerConfig`."""

    @property
    def front_ends(self) -> int: ...
    @property
    def grpc_port(self) -> int | None: ...
    @property
    def zmq(self) -> ZmqConfig: ...
    @property
    def uds(self) -> str | None: ...
    @property
    def shared_memory(self) -> bool: ...
    @property
    def has_admin_api(self) -> bool: ...
    @property
    def batching(self) -> BatchingConfig: ...


def check_front_ends(config: _Settings) -> None:
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
        "the admin API (--admin-token-file, FINGERPOST_ADMIN_TOKEN, --callers)": (
            config.has_admin_api
        ),
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
