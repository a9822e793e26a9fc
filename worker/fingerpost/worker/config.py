"""How one worker process behaves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fingerpost.registry import ConfigurationError
from fingerpost.registry.options import RegistryOptions
from fingerpost.worker.images import ImageLimits

__all__ = ["WorkerConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One worker's settings, validated on construction.

    Attributes:
        registry: the registry's URL, such as `http://127.0.0.1:12481`.
        access: how to be let in there, and how it watches over this worker.
        host: address to listen on. Loopback by default, so that nothing is open by accident;
            `0.0.0.0` serves other machines.
        port: port to listen on; 0 lets the system pick a free one, so that many workers fit on
            one machine.
        advertise: address that clients are given; by default `host`, or where that is a wildcard
            the local address that reaches the registry.
        weight: share of requests relative to other workers, 1 to 65535.
        zone: where it stands (rack, availability zone).
        max_batch: most images in one run of the model. More gives throughput on large machines;
            each takes memory. 32 fits small machines.
        max_queue: most images waiting for the model. Beyond it the worker answers 429 at once.
        max_in_flight: most requests at once, uploads among them. Beyond it likewise 429.
        decode_threads: threads that decode images beside inference.
        limits: which images are refused before decoding.
        body_timeout_s: longest pause between two pieces of a body; a stalled upload is closed.
        lease_s: how long after the registry was told that it leaves the worker goes on accepting,
            because a client may still hold its address.
        drain_timeout_s: longest wait for requests in flight while leaving.
        register_timeout_s: how long to try to register with a registry in trouble before giving
            up, and letting whoever started this worker decide.
        stall_s: a model that runs longer than this on one batch makes the worker unhealthy.
    """

    registry: str
    access: RegistryOptions = field(default_factory=RegistryOptions)
    host: str = "127.0.0.1"
    port: int = 0
    advertise: str | None = None
    weight: int = 1
    zone: str = ""
    max_batch: int = 32
    max_queue: int = 512
    max_in_flight: int = 1024
    decode_threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    limits: ImageLimits = field(default_factory=ImageLimits)
    body_timeout_s: float = 10.0
    lease_s: float = 2.0
    drain_timeout_s: float = 30.0
    register_timeout_s: float = 120.0
    stall_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port} is not in 0..65535 (0 picks a free one)")
        for name in ("max_batch", "max_queue", "max_in_flight", "decode_threads", "weight"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("body_timeout_s", "stall_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("lease_s", "drain_timeout_s", "register_timeout_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 0 or more")
