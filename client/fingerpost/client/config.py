"""How a client behaves."""

from __future__ import annotations

import msgspec

from fingerpost.client.routing import RoutingConfig
from fingerpost.registry import ConfigurationError

__all__ = ["ClientConfig"]


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a client behaves; every field can stay as it is.

    Attributes:
        timeout_s: the deadline of one image where the call names none, from the call to the
            result: reading, waiting, uploading, all attempts. More rides out longer outages.
        no_worker_s: how long to wait for the first answer from a proxy or registry, and for a
            worker where a known service has none. More rides out a restart; less says sooner
            that something is wrong.
        connect_s: how long a connection may take before another worker is asked.
        silence_s: how long a worker may send no byte, once it has the image, before another is
            asked. It is no limit on the upload. Less finds hung workers sooner; below the
            slowest inference it does every slow image twice.
        connections_per_worker: connections kept to one worker; further requests to it wait for
            one. More than two full batches only move the queue from here to the worker.
        routing: see `RoutingConfig`.
    """

    timeout_s: float = 30.0
    no_worker_s: float = 5.0
    connect_s: float = 2.0
    silence_s: float = 10.0
    connections_per_worker: int = 128
    routing: RoutingConfig = RoutingConfig()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name != "routing" and not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value}: use a number above 0")
