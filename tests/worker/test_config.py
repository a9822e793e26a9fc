"""The worker's settings: their ranges, and the old flat names."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.security.leases.config import LeaseRules
from fingerpost.worker.config import (
    DrainConfig,
    LeasesConfig,
    ModelsConfig,
    RegistrationConfig,
    RequestConfig,
    StreamConfig,
    WorkerConfig,
)

WRONG = {
    "port": lambda: WorkerConfig(port=65536),
    "grpc_port": lambda: WorkerConfig(grpc_port=-1),
    "registration.weight": lambda: RegistrationConfig(weight=0),
    "registration.timeout_s": lambda: RegistrationConfig(timeout_s=-1),
    "requests.max_in_flight": lambda: RequestConfig(max_in_flight=0),
    "requests.max_bytes": lambda: RequestConfig(max_bytes=0),
    "connections.headers_timeout_s": lambda: ConnectionConfig(headers_timeout_s=0),
    "connections.idle_timeout_s": lambda: ConnectionConfig(idle_timeout_s=float("nan")),
    "connections.max_connections": lambda: ConnectionConfig(max_connections=0),
    "connections.max_per_client": lambda: ConnectionConfig(max_per_client=-1),
    "requests.body_timeout_s": lambda: RequestConfig(body_timeout_s=float("nan")),
    "requests.min_upload_rate": lambda: RequestConfig(min_upload_rate=-1),
    "requests.max_uploads_per_client": lambda: RequestConfig(max_uploads_per_client=-1),
    "requests.max_memory_bytes": lambda: RequestConfig(max_memory_bytes=1000),
    "streams.window": lambda: StreamConfig(window=0),
    "streams.idle_timeout_s": lambda: StreamConfig(idle_timeout_s=0),
    "streams.heartbeat_s": lambda: StreamConfig(heartbeat_s=0),
    "drain.lease_s": lambda: DrainConfig(lease_s=-1),
    "drain.timeout_s": lambda: DrainConfig(timeout_s=float("nan")),
    "models.poll_s": lambda: ModelsConfig(poll_s=86_401),
    "models.decode_threads": lambda: ModelsConfig(decode_threads=0),
    "models.stall_s": lambda: ModelsConfig(stall_s=0),
    "models.admin_token": lambda: ModelsConfig(admin_token="short"),  # noqa: S106
}


@pytest.mark.parametrize("field", WRONG)
def test_a_value_out_of_its_range_is_an_error_that_names_the_field(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}.*(must have|must be|is not in)"):
        WRONG[field]()


def test_http_and_grpc_have_a_port_each() -> None:
    with pytest.raises(ConfigurationError, match="grpc_port 8500 is the port of HTTP too"):
        WorkerConfig(port=8500, grpc_port=8500)
    assert WorkerConfig(port=0, grpc_port=0).grpc_port == 0


OLD = {
    "access": "registry_config",
    "limits": "images",
    "lease_s": "drain.lease_s",
    "max_batch": "batching.max_batch",
    "max_request_bytes": "requests.max_bytes",
    "stream_idle_s": "streams.idle_timeout_s",
    "admin_token": "models.admin_token",
    "weight": "registration.weight",
    "tracing": "telemetry.tracing",
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_flat_name_is_an_error_that_says_the_new_one(old: str) -> None:
    group, _, name = OLD[old].partition(".")
    advice = rf"use WorkerConfig\({group}=\w+\({name}=" if name else f"is called {group} now"
    old_setting: dict[str, Any] = {old: 1}
    with pytest.raises(ConfigurationError, match=advice):
        WorkerConfig(**old_setting)


def test_the_token_is_not_shown_and_nothing_can_be_changed() -> None:
    config = WorkerConfig(models=ModelsConfig(admin_token="a" * 32))
    assert "aaaa" not in repr(config)
    with pytest.raises(FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "settings",
    [{"keys_file": Path("keys.json")}, {"rules": LeaseRules(grace_s=5)}],
    ids=["keys", "grace"],
)
def test_settings_of_leases_without_leases_are_errors(settings: dict[str, Any]) -> None:
    LeasesConfig(required=True, **settings)
    with pytest.raises(ConfigurationError, match="give --require-lease too"):
        LeasesConfig(**settings)
