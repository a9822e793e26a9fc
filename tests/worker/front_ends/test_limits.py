"""What a worker with several front ends refuses, and what each of them gets of its limits."""

from __future__ import annotations

from typing import Any

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.registry.access import CallersConfig
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.worker.config import ModelsConfig, RequestConfig, WorkerConfig, ZmqConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.front_ends.limits import config_of_one


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("--grpc-port", {"grpc_port": 0}),
        ("--zmq-port", {"zmq": ZmqConfig(port=0)}),
        ("--uds", {"uds": "/run/fingerpost/worker.sock"}),
        ("--shared-memory", {"shared_memory": True}),
        ("--admin-token-file", {"models": ModelsConfig(admin_token="x" * 16)}),
        ("--callers", {"callers": CallersConfig(policy="callers.toml")}),
        ("--max-queue 2", {"batching": BatchingConfig(max_queue=2)}),
    ],
)
def test_what_does_not_go_with_front_ends_is_refused(option: str, settings: dict[str, Any]) -> None:
    WorkerConfig(**settings)
    with pytest.raises(ConfigurationError, match=f"(?s)--front-ends 3|{option}") as caught:
        WorkerConfig(front_ends=3, **settings)
    assert option in str(caught.value)
    assert "--front-ends 3" in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, 65])
def test_their_number_is_bounded(count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"front_ends is {count}"):
        WorkerConfig(front_ends=count)


def test_each_gets_its_part_and_none_gets_nothing() -> None:
    config = WorkerConfig(
        front_ends=3,
        batching=BatchingConfig(max_queue=512),
        requests=RequestConfig(max_in_flight=100, max_bytes=1000),
        connections=ConnectionConfig(max_connections=7, max_per_client=6),
        models=ModelsConfig(decode_threads=1),
    )
    one = config_of_one(config, memory_bytes=30_000)
    assert one.front_ends == 1
    assert one.batching.max_queue == 171
    assert one.requests.max_in_flight == 34
    assert one.requests.max_memory_bytes == 10_000
    assert one.connections.max_connections == 3
    assert one.connections.max_per_client == 6, "a client's connections are not spread evenly"
    assert one.models.decode_threads == 1
    small = config_of_one(config, memory_bytes=1500)
    assert small.requests.max_memory_bytes == 1000, "one body fits everywhere"
