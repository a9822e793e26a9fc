"""The settings of a client: what is refused, and the names that they had before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import fingerpost.client.routing
from fingerpost.client import (
    Client,
    ClientConfig,
    ConfigurationError,
    InvalidName,
    RegistryConfig,
    RoutingConfig,
    SyncClient,
)

NUMBERS = [each.name for each in dataclasses.fields(ClientConfig) if each.type in {"float", "int"}]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_numbers_are_above_zero_and_finite(name, value):
    with pytest.raises(ConfigurationError, match=f"{name}={value}: use a number above 0"):
        ClientConfig(**{name: value})


def test_there_are_as_many_numbers_as_are_checked():
    assert len(NUMBERS) == 8


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("no_worker_s", "wait_for_ready_s"),
        ("connect_s", "connect_timeout_s"),
        ("progress_s", "upload_stall_timeout_s"),
        ("silence_s", "response_timeout_s"),
        ("unanswered_s", "probe_timeout_s"),
        ("stream_mb", r"stream_max_bytes \(in bytes, not megabytes\)"),
    ],
)
def test_an_old_name_raises_an_error_that_names_the_new_one(old, new):
    message = rf"^ClientConfig\({old}=\.\.\.\): this setting is called {new} now$"
    old_setting: dict[str, Any] = {old: 1}
    with pytest.raises(ConfigurationError, match=message):
        ClientConfig(**old_setting)


@pytest.mark.parametrize("client", [Client, SyncClient])
def test_an_old_argument_of_the_client(client):
    message = r"^\w*Client\(registry_options=...\): this argument is called registry_config now$"
    with pytest.raises(ConfigurationError, match=message):
        client(registry="embedded", registry_options=RegistryConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": "2"},
        {"hedge": "yes"},
        {"relay": None},
        {"client_id": 3},
        {"routing": "round-robin"},
    ],
)
def test_a_setting_of_another_type(wrong: dict[str, Any]):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"^ClientConfig: {name}="):
        ClientConfig(**wrong)


@pytest.mark.parametrize("source", [3.14, b"http://127.0.0.1:12480", [3], {}])
@pytest.mark.parametrize("client", [Client, SyncClient])
def test_a_source_of_another_type(client: Any, source: Any):
    with pytest.raises(ConfigurationError, match="is not a valid source of workers"):
        client(source)


@pytest.mark.parametrize("config", [{}, RoutingConfig()])
def test_a_config_of_another_type(config: Any):
    with pytest.raises(ConfigurationError, match="use a ClientConfig"):
        Client(config=config)


def test_a_policy_that_does_not_exist_is_known_at_once():
    config = ClientConfig(routing=RoutingConfig(policy="round_robin"))
    with pytest.raises(ConfigurationError, match="policy='round_robin': use one of hot-cold"):
        Client(config=config)


@pytest.mark.parametrize("wrong", [{"top": "x"}, {"timeout_s": "x"}])
async def test_an_argument_of_another_type(wrong: dict[str, Any]):
    async with Client() as client:
        with pytest.raises(ConfigurationError, match="use a whole number and a number"):
            await client.classify(b"", "digits", **wrong)


async def test_a_model_that_is_not_text():
    model: Any = None
    async with Client() as client:
        with pytest.raises(InvalidName, match="None is not a model's name"):
            await client.classify(b"", model)


@pytest.mark.parametrize("name", ["Fleet", "Worker", "Pause", "AdaptiveLimit"])
def test_an_old_name_of_routing(name: str):
    with pytest.raises(ImportError, match=f"{name} is called "):
        getattr(fingerpost.client.routing, name)
