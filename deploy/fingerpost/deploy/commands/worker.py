"""`fingerpost worker`: serve a model, or several."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from fingerpost.basics.config_file import read_text
from fingerpost.basics.service_manager import ServiceManager
from fingerpost.deploy import options
from fingerpost.deploy.logs import start_logging
from fingerpost.deploy.options.devices import placements
from fingerpost.deploy.options.model import ModelOptions, takes_model_options
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.served_models import many_models, one_model
from fingerpost.deploy.options.tls import takes_server_tls_options
from fingerpost.deploy.processes.worker_process import PreparedWorker, run_worker
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.secret_file import warn_if_public
from fingerpost.security.tls.config import TlsConfig

__all__ = ["add_to", "worker", "worker_command"]

_MODEL: Final = "One model (--model)"
_MODELS: Final = "Versions, and several models"
_NETWORK: Final = "Network"
_LIMITS: Final = "Batches and limits"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(worker_command(_serve))


def worker_command(run: Callable[..., None]) -> Callable[..., None]:
    """A subcommand with the options of `fingerpost worker`; `run` gets what `worker` takes."""
    command = takes_model_options(functools.wraps(worker)(run))
    return takes_registry_options(takes_server_tls_options(command, asks_workers=False))


def _serve(**values: Any) -> None:
    start_logging(values["log_level"], values["log_format"])
    service_manager = ServiceManager.take(os.environ)
    log = functools.partial(start_logging, values["log_level"], values["log_format"])
    run_worker(worker(**values), service_manager, prepare=log)


def worker(
    *,
    model: Annotated[
        Path | None,
        _option(_MODEL, "A model's file or folder, or its folder of versions.", metavar="PATH"),
    ] = None,
    models: Annotated[
        Path | None,
        _option(_MODELS, "Serve every model in this folder, as NAME/VERSION/.", metavar="FOLDER"),
    ] = None,
    only: Annotated[
        str | None, _option(_MODELS, "Serve only these models of --models.", metavar="NAME,...")
    ] = None,
    versions: Annotated[
        str,
        _option(
            _MODELS,
            "Which versions to serve, unless the model has a versions.toml: latest:N, "
            "specific:1,3 or all.",
            metavar="POLICY",
        ),
    ] = "latest:1",
    poll: Annotated[
        float, _option(_MODELS, "Seconds between checks for new versions; 0 checks once.")
    ] = 1.0,
    admin_token_file: Annotated[
        Path | None,
        _option(
            _MODELS,
            "File with the token for /v1/admin, or FINGERPOST_ADMIN_TOKEN; off without.",
            envvar="FINGERPOST_ADMIN_TOKEN_FILE",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    registry: str,
    version: Annotated[
        str | None,
        _option(_MODEL, "Version to serve; by default the highest, also a new one.", metavar="N"),
    ] = None,
    host: options.Host = "127.0.0.1",
    port: Annotated[int, _option(_NETWORK, "Port to listen on; 0 picks a free one.")] = 0,
    front_ends: Annotated[
        int,
        _option(
            _NETWORK,
            "Processes that take requests and decode images for one that runs the models; more "
            "than 1 feed a GPU that is faster than one process.",
            metavar="N",
            min=1,
            max=64,
        ),
    ] = 1,
    grpc_port: Annotated[
        int | None,
        _option(_NETWORK, "Port for gRPC, which is off without; 0: a free one.", metavar="PORT"),
    ] = None,
    zmq_port: Annotated[
        int | None,
        _option(_NETWORK, "Port for ZeroMQ, which is off without; 0: a free one.", metavar="PORT"),
    ] = None,
    zmq_key: Annotated[
        Path | None,
        _option(
            _NETWORK,
            "File with the key pair that encrypts ZeroMQ (`fingerpost keys curve`).",
            envvar="FINGERPOST_ZMQ_KEY",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    zmq_clients: Annotated[
        Path | None,
        _option(
            _NETWORK,
            "File with the public keys of ZeroMQ's clients; without it all are let in.",
            envvar="FINGERPOST_ZMQ_CLIENTS",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    uds: Annotated[
        str | None,
        _option(
            _NETWORK,
            "Path of a Unix socket to listen on too, for clients on this host.",
            metavar="PATH",
        ),
    ] = None,
    shared_memory: Annotated[
        bool,
        _option(
            _NETWORK,
            "Let clients on this host have inputs and outputs in shared memory, as Triton does.",
        ),
    ] = False,
    advertise: Annotated[
        str | None,
        _option(_NETWORK, "Address that clients are given, if not --host.", metavar="HOST"),
    ] = None,
    weight: Annotated[int, _option(_NETWORK, "Share of requests, relative to other workers.")] = 1,
    zone: Annotated[str, _option(_NETWORK, "Its rack or availability zone.")] = "",
    check: Annotated[
        Literal["http", "ttl", "https"],
        _option(
            _NETWORK,
            "How Consul checks it; ttl where the agent cannot reach it; https where it asks for "
            "client certificates and the agent has one.",
        ),
    ] = "http",
    registry_wait: Annotated[
        float | None,
        _option(
            _NETWORK,
            "Seconds to wait for a registry that does not answer; 0 ends at once, and without the "
            "option it is waited for without limit.",
            metavar="SECONDS",
            min=0,
        ),
    ] = None,
    wan_address: Annotated[
        str | None,
        _option(_NETWORK, "Its address for other datacenters, if it differs.", metavar="HOST"),
    ] = None,
    registration_key: Annotated[
        Path | None,
        _option(
            _NETWORK,
            "File with the private key (Ed25519) that signs its registration.",
            envvar="FINGERPOST_REGISTRATION_KEY",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    lease: Annotated[
        float,
        _option(
            _NETWORK,
            "Seconds to keep accepting requests after SIGTERM, for clients that know this worker "
            "from an earlier answer.",
        ),
    ] = 2.0,
    insecure: options.Insecure = False,
    require_lease: Annotated[
        bool,
        _option(
            _NETWORK,
            "Take images only with a lease, signed by a proxy that has --lease-key.",
        ),
    ] = False,
    lease_keys: Annotated[
        Path | None,
        _option(
            _NETWORK,
            "File with the public keys of leases (JWKS); by default those in the registry.",
            envvar="FINGERPOST_LEASE_KEYS",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    lease_grace: Annotated[
        float,
        _option(
            _NETWORK,
            "Seconds for which a lease is accepted after its end, for an outage of all proxies.",
            metavar="SECONDS",
        ),
    ] = 0.0,
    cluster: options.Cluster = options.DEFAULT_CLUSTER,
    max_per_client: options.MaxPerClient = None,
    allow_origin: options.AllowOrigins = None,
    classes: Annotated[
        str,
        _option(
            _LIMITS,
            "Priority classes, first served first, each with the least share of the images that "
            "it gets (--classes urgent,interactive:0.2,batch:0.05).",
        ),
    ] = "interactive,batch:0.05",
    max_batch: Annotated[int, _option(_LIMITS, "Largest batch, in images.")] = 32,
    max_queue: Annotated[
        int, _option(_LIMITS, "Most images in the queue; further ones get 429.")
    ] = 512,
    max_wait_ms: Annotated[
        float, _option(_LIMITS, "How long an image may wait for others while the model is idle.")
    ] = 0.0,
    latency_ms: Annotated[
        float | None,
        _option(_LIMITS, "Target for queueing and inference; kept by smaller batches and 429."),
    ] = None,
    max_bytes: Annotated[
        int, _option(_LIMITS, "Largest image in bytes; larger ones get 413.")
    ] = 20_000_000,
    max_request_bytes: Annotated[
        int,
        _option(_LIMITS, "Largest body of several images or of tensors; larger ones get 413."),
    ] = 64_000_000,
    max_memory: Annotated[
        int | None,
        _option(
            _LIMITS,
            "Most megabytes of bodies of all requests at once; further ones get 429. By default "
            "an eighth of the machine's or control group's memory.",
            metavar="MB",
            show_default=False,
            min=1,
        ),
    ] = None,
    max_megapixels: Annotated[
        float,
        _option(
            _LIMITS,
            "Largest image in megapixels; larger ones get 413. Those of a WebP count four times, "
            "because decoding it takes more.",
        ),
    ] = 64.0,
    threads: Annotated[
        int, _option(_LIMITS, "Threads for the model; 0 is one for each core.", min=0)
    ] = 0,
    device: options.Device = "auto",
    memory_fraction: options.MemoryFraction = None,
    devices: options.Devices = None,
    processes_per_device: options.ProcessesPerDevice = 1,
    callers: options.CallersFile = None,
    audit_log: options.AuditLogFile = None,
    access_log: options.AccessLogFile = None,
    tracing: options.Tracing = False,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "text",
    follow_parent: options.FollowParent = False,
    model_options: ModelOptions,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
) -> PreparedWorker:
    """Load models, warm them up, register them, and serve them until SIGTERM."""
    del log_level, log_format  # of the process, and not of the worker
    from fingerpost.registry.access import CallersConfig
    from fingerpost.registry.config import CheckConfig
    from fingerpost.registry.http.connection_config import ConnectionConfig
    from fingerpost.registry.http.cors_config import CorsConfig
    from fingerpost.security.leases.config import LeaseRules
    from fingerpost.worker.config import (
        DrainConfig,
        LeasesConfig,
        ModelsConfig,
        RegistrationConfig,
        RequestConfig,
        TelemetryConfig,
        WorkerConfig,
        ZmqConfig,
    )
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.engine.fairness.flow import parse_classes
    from fingerpost.worker.images import ImageConfig

    chosen = placements(device, devices, processes_per_device, memory_fraction)
    config = WorkerConfig(
        registry=registry,
        registry_config=dataclasses.replace(
            registry_config, check=CheckConfig(mode=check), wan_address=wan_address
        ),
        registration=RegistrationConfig(
            advertise=advertise,
            weight=weight,
            zone=zone,
            registry_wait_s=math.inf if registry_wait is None else registry_wait,
            key=registration_key,
        ),
        host=host,
        port=port,
        front_ends=front_ends,
        grpc_port=grpc_port,
        zmq=ZmqConfig(port=zmq_port, key=zmq_key, clients=zmq_clients),
        uds=uds,
        shared_memory=shared_memory,
        batching=BatchingConfig(
            max_batch=max_batch,
            max_queue=max_queue,
            max_wait_s=max_wait_ms / 1000,
            latency_s=None if latency_ms is None else latency_ms / 1000,
            classes=parse_classes(classes),
        ),
        images=ImageConfig(max_bytes=max_bytes, max_pixels=int(max_megapixels * 1e6)),
        connections=ConnectionConfig(max_per_client=max_per_client),
        cors=CorsConfig(allow_origins=tuple(allow_origin or ())),
        requests=RequestConfig(
            max_bytes=max_request_bytes,
            max_memory_bytes=None if max_memory is None else max_memory * 1_000_000,
        ),
        drain=DrainConfig(lease_s=lease),
        models=ModelsConfig(
            poll_s=poll, admin_token=_admin_token(admin_token_file), placement=chosen[0]
        ),
        leases=LeasesConfig(
            required=require_lease,
            keys_file=lease_keys,
            rules=LeaseRules(cluster=cluster, grace_s=lease_grace),
        ),
        callers=CallersConfig(policy=callers, audit_log=audit_log),
        telemetry=TelemetryConfig(access_log=access_log, tracing=tracing),
        tls=tls,
    )
    if model is not None and models is None and only is None:
        source = one_model(model, version, versions, model_options)
    elif models is not None and model is None:
        given = [*model_options.of_one_model(), *(["--version"] if version is not None else [])]
        if given:
            raise typer.BadParameter(
                f"{', '.join(given)} cannot be used with --models: write it into the version's "
                "model.toml"
            )
        source = many_models(models, only, versions, model_options)
    else:
        raise typer.BadParameter("give either --model PATH or --models FOLDER [--only NAME,...]")
    return PreparedWorker(
        config=config,
        source=source,
        placements=chosen,
        threads=threads,
        insecure=insecure,
        follow_parent=follow_parent,
    )


def _admin_token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("FINGERPOST_ADMIN_TOKEN") or None
    warn_if_public(file, "the admin token")
    try:
        return read_text(file).strip()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no file {file} with the admin token: give --admin-token-file another one"
        ) from error
