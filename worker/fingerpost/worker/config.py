"""The settings of one worker process."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fingerpost.basics.renames import renamed_fields
from fingerpost.errors import ConfigurationError
from fingerpost.registry.access.config import CallersConfig
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.cors_config import CorsConfig
from fingerpost.registry.same_host import path_problem
from fingerpost.security.leases.config import LeaseRules
from fingerpost.worker.backends.devices import Placement
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.front_end_limits import check_front_ends
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.zmq_config import ZmqConfig

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.security.tls import TlsConfig

__all__ = [
    "DrainConfig",
    "LeasesConfig",
    "ModelsConfig",
    "RegistrationConfig",
    "RequestConfig",
    "StreamConfig",
    "TelemetryConfig",
    "WorkerConfig",
    "ZmqConfig",
]

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationConfig:
    """What the registry is told about a worker.

    Attributes:
        advertise: the host name or address that clients are given. None, the default, is the
            address that the worker listens on, or where that is a wildcard the local address that
            reaches the registry.
        weight: the share of requests relative to other workers, 1 to 65535. Twice the weight gets
            twice the requests; 1 is right where all workers are alike.
        zone: the rack or availability zone, for clients that ask for one. Empty means no zone.
        timeout_s: seconds of trying to register with a registry in trouble before the worker gives
            up. More survives longer outages; the election of a registry's leader takes up to 20 s.
        registry_wait_s: seconds to wait for a registry that cannot be reached, at the start and
            when the worker registers. Infinite, the default, as the proxy does, so that they may
            be started in any order; 0 gives up at once.
        key: a file with a private key (Ed25519), read again when it changes, which signs the
            registration: see `fingerpost.registry.entry_signature`. None does not sign.
        signature_life_s: seconds for which a signature is valid. It is renewed after a third of
            that. More outlasts a longer outage of the registry; less lets a copy of an old entry
            be used for a shorter time. A day outlasts a night without the registry.
    """

    advertise: str | None = None
    weight: int = 1
    zone: str = ""
    timeout_s: float = 120.0
    registry_wait_s: float = math.inf
    key: Path | None = None
    signature_life_s: float = _DAY_S

    def __post_init__(self) -> None:
        _check_range("registration.weight", self.weight, 1, 65_535)
        _check_least("registration.timeout_s", self.timeout_s, 0)
        _check_least("registration.registry_wait_s", self.registry_wait_s, 0)
        _check_least("registration.signature_life_s", self.signature_life_s, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestConfig:
    """Which requests are refused, and when.

    Attributes:
        max_in_flight: most requests at once, uploads among them; the next is answered with 429.
            More absorbs larger bursts, for the memory of their bodies. 1024 small images are 20 MB.
        max_bytes: largest body with several images or with tensors, in bytes; a larger one is
            answered with 413. More takes more memory. 64 MB holds what Triton's default does; a
            base64 image takes a third more than its bytes. It also bounds the images that one
            stream has in flight.
        body_timeout_s: longest pause between two pieces of a body, in seconds; a stalled upload is
            closed. More lets slow clients hold more memory; 10 s outlasts some lost packets.
        min_upload_rate: fewest bytes of a body in a second, on average of each 20 s; a slower
            upload is closed. More frees the memory of slow uploads sooner; 0 means no limit. 500 is
            Apache's default, too, and any modem's rate is higher.
        max_uploads_per_client: most unfinished bodies of one address, or of one /64 of IPv6; the
            next is answered with 429; 0 means no limit. More lets one client hold more of
            `max_in_flight`; the default is a quarter of its default. A load balancer has one
            address: use 0 behind one.
        max_memory_bytes: most bytes of bodies in the whole process, from their arrival to their
            answer; what exceeds it is answered with 429. More absorbs larger bursts. None, the
            default, is an eighth of the memory of the machine or the control group, and at least
            twice `max_bytes`. Decoded images and models come on top.
    """

    max_in_flight: int = 1024
    max_bytes: int = 64_000_000
    body_timeout_s: float = 10.0
    min_upload_rate: float = 500.0
    max_uploads_per_client: int = 256
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_least("requests.max_in_flight", self.max_in_flight, 1)
        _check_least("requests.max_bytes", self.max_bytes, 1)
        _check_positive("requests.body_timeout_s", self.body_timeout_s)
        _check_least("requests.min_upload_rate", self.min_upload_rate, 0)
        _check_least("requests.max_uploads_per_client", self.max_uploads_per_client, 0)
        if self.max_memory_bytes is not None:
            _check_least("requests.max_memory_bytes", self.max_memory_bytes, self.max_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How image streams (`POST /v1/stream/MODEL`) are served.

    Attributes:
        window: images of one stream that are read ahead of their answers. More takes memory, up to
            `RequestConfig.max_bytes`; 64 is two full batches, which keep the model busy.
        idle_timeout_s: a stream that sends no byte, or takes none, for this many seconds is ended.
            More keeps the streams of slow senders open; 60 s is nginx's default, too.
        heartbeat_s: seconds without an answer after which a heartbeat is sent. More saves a few
            bytes; it must stay well below the timeouts of clients and proxies, and 5 s does.
    """

    window: int = 64
    idle_timeout_s: float = 60.0
    heartbeat_s: float = 5.0

    def __post_init__(self) -> None:
        _check_least("streams.window", self.window, 1)
        _check_positive("streams.idle_timeout_s", self.idle_timeout_s)
        _check_positive("streams.heartbeat_s", self.heartbeat_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainConfig:
    """How a worker leaves.

    Attributes:
        lease_s: seconds for which new requests are still accepted after the registry was told,
            because clients may hold the address for that long. More makes leaving slower; it must
            not be less than the lease of the proxies, 2 s.
        timeout_s: longest wait for requests in flight, in seconds. More lets slow models finish;
            30 s is the grace period of Kubernetes, too.
    """

    lease_s: float = 2.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        _check_least("drain.lease_s", self.lease_s, 0)
        _check_least("drain.timeout_s", self.timeout_s, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig:
    """How models are found, loaded and run.

    Attributes:
        poll_s: seconds between two scans of the models' folder, up to a day; 0 scans only at the
            start. More spares a slow file system; less finds a new version sooner, and waits
            less for a copy under way.
        admin_token: the token of those who may load and unload models over HTTP, 16 to 1024
            characters. None, the default, switches the admin API off.
        decode_threads: threads that decode images while the model runs. More than the cores only
            switches between them; the default is one a core, at most 8.
        stall_s: a model that runs longer than this on one batch, or decoders that all take longer
            for one image, make the worker unhealthy, in seconds. More tolerates slower models;
            less finds a hanging one sooner. 60 s is far above any batch that clients wait for, and
            ten times what the dearest image takes.
        placement: the device on which this process runs its models.
    """

    poll_s: float = 1.0
    admin_token: str | None = field(default=None, repr=False)
    decode_threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    stall_s: float = 60.0
    placement: Placement = field(default_factory=lambda: Placement(device="auto"))

    def __post_init__(self) -> None:
        _check_range("models.poll_s", self.poll_s, 0, _DAY_S)
        _check_least("models.decode_threads", self.decode_threads, 1)
        _check_positive("models.stall_s", self.stall_s)
        if self.admin_token is not None and not 16 <= len(self.admin_token) <= 1024:
            raise ConfigurationError(
                f"models.admin_token has {len(self.admin_token)} characters: it must have 16 to "
                "1024; `openssl rand -hex 32` makes one"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesConfig:
    """Who may send images.

    Attributes:
        required: take requests for models only with a lease that a proxy has signed. Off by
            default: whoever reaches the worker may classify.
        keys_file: the file with the public keys of those who sign leases (JWKS), read again when
            it changes. None, the default, is what `fingerpost keys` has published in the registry.
        rules: which leases are accepted; see `LeaseRules`.
    """

    required: bool = False
    keys_file: Path | None = None
    rules: LeaseRules = field(default_factory=LeaseRules)

    def __post_init__(self) -> None:
        if self.keys_file is not None and not self.required:
            raise ConfigurationError(
                f"leases.keys_file {str(self.keys_file)!r} is of use only with leases.required: "
                "give --require-lease too, or leave out --lease-keys"
            )
        if self.rules.grace_s and not self.required:
            raise ConfigurationError(
                f"leases.rules.grace_s {self.rules.grace_s!r} is of use only with leases.required: "
                "give --require-lease too, or leave out --lease-grace"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """What is written about each request, beside the metrics.

    Attributes:
        access_log: a file that gets one line of JSON for each request; `-` is standard output.
            None, the default, writes none.
        tracing: send OpenTelemetry traces even where no `OTEL_...` variable asks for them.
    """

    access_log: str | None = None
    tracing: bool = False


@renamed_fields(
    access="registry_config",
    advertise="registration.advertise",
    weight="registration.weight",
    zone="registration.zone",
    register_timeout_s="registration.timeout_s",
    max_batch="batching.max_batch",
    max_queue="batching.max_queue",
    max_wait_s="batching.max_wait_s",
    latency_s="batching.latency_s",
    limits="images",
    max_in_flight="requests.max_in_flight",
    max_request_bytes="requests.max_bytes",
    headers_timeout_s="connections.headers_timeout_s",
    body_timeout_s="requests.body_timeout_s",
    stream_window="streams.window",
    stream_idle_s="streams.idle_timeout_s",
    stream_heartbeat_s="streams.heartbeat_s",
    lease_s="drain.lease_s",
    drain_timeout_s="drain.timeout_s",
    poll_s="models.poll_s",
    admin_token="models.admin_token",  # noqa: S106 - a field's name
    decode_threads="models.decode_threads",
    stall_s="models.stall_s",
    placement="models.placement",
    access_log="telemetry.access_log",
    tracing="telemetry.tracing",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The settings of one worker process, validated on construction.

    Attributes:
        registry: the URL of the registry, such as `consul://127.0.0.1:8500`; `embedded`, the
            default, is the one that `fingerpost registry` runs on this machine.
        registry_config: credentials for the registry, and how it checks this worker.
        registration: what the registry is told about this worker.
        host: the address to listen on. Loopback by default, so that nothing is open by accident;
            `0.0.0.0` serves other machines.
        port: the port to listen on, 0 to 65535. 0, the default, lets the system pick a free one,
            so that many workers fit on one machine.
        front_ends: processes that take requests and decode images for the one with the models; 1,
            the default, does all in one process. More feed a GPU that is faster than one process;
            on a CPU they take from the model what they need.
        grpc_port: the port for gRPC, likewise, which needs the extra `grpc`. None, the default,
            serves none.
        zmq: the port for ZeroMQ, and its keys; see `ZmqConfig`. By default there is none.
        uds: the path of a Unix socket to listen on too, for clients on this host: the same
            protocols, limits and errors, and TLS where the port has it. Whoever may enter its
            folder may connect. None, the default, means no socket.
        shared_memory: let clients on this host register their shared memory (`/dev/shm`), and have
            inputs read from it and outputs written into it, as Triton does. Off by default: a
            client then reads and writes whatever the worker's user may.
        batching: how images are gathered into batches; a model's own `model.toml` overrides it.
        images: which images are refused before they are decoded.
        requests: which requests are refused, and when.
        connections: which connections are refused or closed.
        cors: which web pages may use this worker from their scripts; by default none.
        tls: the certificate to serve with, and whether clients must show one; see `TlsConfig`.
            None serves plain HTTP.
        streams: how image streams are served.
        drain: how the worker leaves.
        models: how models are found, loaded and run.
        leases: who may send images.
        telemetry: what is written about each request.
        callers: who may use the admin API beside those with its token, and where orders and
            refusals are written down. Who may send images is the leases' to say.

    Raises:
        ConfigurationError: a value out of its range; the message names the field, the value and
            what is allowed.
    """

    registry: str = "embedded"
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    host: str = "127.0.0.1"
    port: int = 0
    front_ends: int = 1
    grpc_port: int | None = None
    zmq: ZmqConfig = field(default_factory=ZmqConfig)
    uds: str | None = None
    shared_memory: bool = False
    batching: BatchingConfig = field(default_factory=BatchingConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    requests: RequestConfig = field(default_factory=RequestConfig)
    connections: ConnectionConfig = field(default_factory=ConnectionConfig)
    cors: CorsConfig = field(default_factory=CorsConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    drain: DrainConfig = field(default_factory=DrainConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    leases: LeasesConfig = field(default_factory=LeasesConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    tls: TlsConfig | None = None
    callers: CallersConfig = field(default_factory=CallersConfig)

    @property
    def has_admin_api(self) -> bool:
        """Whether somebody may use the admin API, which otherwise is not there."""
        return bool(self.models.admin_token or self.callers.policy)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port} is not in 0..65535 (0 picks a free one)")
        if self.grpc_port is not None:
            if not 0 <= self.grpc_port <= 65535:
                raise ConfigurationError(
                    f"grpc_port {self.grpc_port} is not in 0..65535 (0 picks a free one)"
                )
            if self.port and self.grpc_port == self.port:
                raise ConfigurationError(
                    f"grpc_port {self.grpc_port} is the port of HTTP too: give each its own"
                )
        if self.zmq.port and self.zmq.port in (self.port, self.grpc_port):
            raise ConfigurationError(
                f"zmq.port {self.zmq.port} is the port of another transport too: give each its own"
            )
        open_zmq = self.zmq.port is not None and self.zmq.clients is None
        if open_zmq and self.tls is not None and self.tls.client_ca:
            raise ConfigurationError(
                f"tls.client_ca {self.tls.client_ca!r} asks clients for certificates, which ZeroMQ "
                "does not have: name the keys of its clients too (--zmq-clients), or leave out "
                "--zmq-port"
            )
        if self.uds is not None and (problem := path_problem(self.uds)):
            raise ConfigurationError(f"uds {self.uds!r} is not a valid path: {problem}")
        if self.tls is not None and not self.tls.serves:
            raise ConfigurationError(
                "tls has no certificate to serve with: give --tls-cert and --tls-key"
            )
        check_front_ends(self)


def _check_least(name: str, value: float, least: float) -> None:
    if not value >= least:  # false for NaN, too
        raise ConfigurationError(f"{name} is {value}: it must be {least} or more")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigurationError(f"{name} is {value}: it must be {least} to {most}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{name} is {value}: it must be above 0")
