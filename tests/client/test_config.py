"""The settings of a client: what is refused, and the names that they had before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fingerpost.client import Client, ClientConfig, ConfigurationError, RegistryConfig, SyncClient

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
