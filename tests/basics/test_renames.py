"""Old names of settings raise an error that names the new one."""

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fingerpost.basics.renames import renamed_attributes, renamed_fields
from fingerpost.client import ClientConfig, RoutingConfig, Stats
from fingerpost.errors import ConfigurationError
from fingerpost.registry import ModelInfo, ModelReference, Snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    attempts: int = 3


@renamed_fields(
    silence_s="response_timeout_s",
    attempts="retry.attempts",
    stream_mb="stream_max_bytes (in bytes, not MB)",
)
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration."""

    response_timeout_s: float = 15.0
    retry: Retry = dataclasses.field(default_factory=Retry)
    stream_max_bytes: int = 64_000_000

    def __post_init__(self) -> None:
        if self.response_timeout_s <= 0:
            raise ConfigurationError(f"response_timeout_s={self.response_timeout_s}: use more")


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (
            "silence_s",
            "Config(silence_s=...): this setting is called response_timeout_s now",
        ),
        ("attempts", "Config(attempts=...): use Config(retry=Retry(attempts=...))"),
        (
            "stream_mb",
            "Config(stream_mb=...): this setting is called stream_max_bytes (in bytes, not MB) now",
        ),
    ],
)
def test_an_old_name_raises_an_error_with_the_new_one(old, message):
    old_setting: dict[str, Any] = {old: 1}
    with pytest.raises(ConfigurationError) as caught:
        Config(**old_setting)
    assert caught.value.message == message
    with pytest.raises(ConfigurationError) as caught:
        dataclasses.replace(Config(), **old_setting)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("record", "old", "new"),
    [
        (Config(), "silence_s", "response_timeout_s"),
        (Config(), "attempts", "retry.attempts"),
        (ClientConfig(), "no_worker_s", "wait_for_ready_s"),
        (RoutingConfig(), "far", "hot_cold.outlier_factor"),
        (Stats(), "silences", "unresponsive"),
        (ModelReference("digits"), "label", "alias"),
        (ModelInfo(name="digits", versions=("1",)), "labels", "aliases"),
        (Snapshot(service="a", instances=(), known=True, index=1, taken_at=0), "kept", "retained"),
    ],
)
def test_an_old_name_is_not_read_either(record, old, new):
    message = f"^{type(record).__name__}.{old} is called {new} now$"
    with pytest.raises(AttributeError, match=message):
        getattr(record, old)
    assert not hasattr(record, old)


def test_everything_else_is_as_in_any_dataclass():
    config = Config(response_timeout_s=2.0)
    assert (config.response_timeout_s, config.retry.attempts) == (2.0, 3)
    assert dataclasses.replace(config, retry=Retry(attempts=1)) == Config(
        response_timeout_s=2.0, retry=Retry(attempts=1)
    )
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config  # noqa: S301
    assert hash(config) == hash(Config(response_timeout_s=2.0))
    assert not hasattr(config, "__dict__")
    assert list(inspect.signature(Config).parameters) == [
        "response_timeout_s",
        "retry",
        "stream_max_bytes",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.response_timeout_s = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigurationError, match="use more"):
        Config(response_timeout_s=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        Config(nonsense=1)  # pyright: ignore[reportCallIssue]


def test_mistakes_in_the_table_are_found_when_the_class_is_made():
    with pytest.raises(TypeError, match="not a dataclass"):
        renamed_fields(old="new")(object)
    with pytest.raises(TypeError, match="still has a field 'retry'"):
        renamed_fields(retry="stream_max_bytes")(Config)
    with pytest.raises(TypeError, match="has no field 'retries'"):
        renamed_fields(old="retries")(Config)
    with pytest.raises(TypeError, match="not a dataclass"):
        renamed_fields(old="retry")(type("Below", (Config,), {}))
    with pytest.raises(TypeError, match="still has an attribute 'retry'"):
        renamed_attributes(retry="retries")(Config)


@pytest.mark.shell
def test_type_checkers_see_the_real_signature(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from dataclasses import dataclass\n"
        "from fingerpost.basics.renames import renamed_fields\n"
        '@renamed_fields(old="new")\n'
        "@dataclass(frozen=True, slots=True, kw_only=True)\n"
        "class Config:\n"
        "    new: int = 1\n"
        "number: int = Config(new=2).new\n"
        "Config(old=2)\n"
        'Config(new="2")\n'
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", program],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
    )
    errors = [line.split(":", 1)[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert [int(each.split(":")[0]) for each in errors] == [8, 9], done.stdout + done.stderr
