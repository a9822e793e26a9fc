"""How one worker process behaves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fingerpost.errors import ConfigurationError
from fingerpost.registry.options import RegistryOptions
from fingerpost.worker.backends.devices import Placement
from fingerpost.worker.engine.config import BatchingConfig
from fingerpost.worker.images import ImageConfig

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
        max_queue: most images waiting for a decoder or the model. Beyond it the worker answers 429
            at once.
        max_wait_s: how long an image may wait for company while the model is idle; see
            `BatchingConfig`, as for the next.
        latency_s: keep the time from an image's arrival to its answer under this, by smaller
            batches and by refusing what would take longer; None makes batches as large as the load.
        max_in_flight: most requests at once, uploads among them. Beyond it likewise 429.
        decode_threads: threads that decode images beside inference.
        limits: which images are refused before decoding.
        max_request_bytes: largest body with several images, or with tensors. 64 MB holds what
            Triton's default does; a base64 image takes a third more than its bytes. It also bounds
            the images that one stream has in flight.
        stream_window: images of one stream that are read ahead of their answers. Two batches keep
            the model busy; more takes memory, up to `max_request_bytes`.
        stream_idle_s: a stream that brings no byte, or takes none, for so long is ended.
        stream_heartbeat_s: a stream that has nothing to say says so this often.
        headers_timeout_s: longest time that the headers of a request take from their first byte, or
            from a new connection's start; then the connection is closed.
        body_timeout_s: longest pause between two pieces of a body; a stalled upload is closed.
        lease_s: how long after the registry was told that it leaves the worker goes on accepting,
            because a client may still hold its address.
        drain_timeout_s: longest wait for requests in flight while leaving.
        register_timeout_s: how long to try to register with a registry in trouble before giving
            up, and letting whoever started this worker decide.
        poll_s: how often the models' folder is looked at; 0 never. More spares a slow file system;
            less takes up a new version sooner, and waits less for a copy under way.
        admin_token: whoever sends it may load and unload; None switches that off.
        stall_s: a model that runs longer than this on one batch makes the worker unhealthy.
        placement: the device that this process took, for the registration to tell.
        access_log: a file that gets a line of JSON for each request, `-` for standard output.
        tracing: send OpenTelemetry traces even where no `OTEL_...` variable asks for them.
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
    max_wait_s: float = 0.0
    latency_s: float | None = None
    max_in_flight: int = 1024
    decode_threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    limits: ImageConfig = field(default_factory=ImageConfig)
    max_request_bytes: int = 64_000_000
    stream_window: int = 64
    stream_idle_s: float = 60.0
    stream_heartbeat_s: float = 5.0
    headers_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    lease_s: float = 2.0
    drain_timeout_s: float = 30.0
    register_timeout_s: float = 120.0
    poll_s: float = 1.0
    admin_token: str | None = field(default=None, repr=False)
    stall_s: float = 60.0
    placement: Placement = field(default_factory=lambda: Placement(device="auto"))
    access_log: str | None = None
    tracing: bool = False

    @property
    def batching(self) -> BatchingConfig:
        """How images are gathered where a model's own file does not say it."""
        return BatchingConfig(
            max_batch=self.max_batch,
            max_queue=self.max_queue,
            max_wait_s=self.max_wait_s,
            latency_s=self.latency_s,
        )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port} is not in 0..65535 (0 picks a free one)")
        for name in ("max_batch", "max_queue", "max_in_flight", "decode_threads", "weight"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("max_request_bytes", "stream_window"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("stream_idle_s", "stream_heartbeat_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("headers_timeout_s", "body_timeout_s", "stall_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("lease_s", "drain_timeout_s", "register_timeout_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if not 0 <= self.poll_s <= 86400:
            raise ConfigurationError(f"poll_s is {self.poll_s}: it must be 0 (never) to a day")
        if self.admin_token is not None and not 16 <= len(self.admin_token) <= 1024:
            raise ConfigurationError(
                f"the admin token has {len(self.admin_token)} characters: it must have 16 to 1024; "
                "`openssl rand -hex 32` makes one"
            )
        _ = self.batching  # checks its own
