"""Environment variables that are misspelt are named in the log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import commands

from fingerpost.deploy.credentials import CREDENTIALS
from fingerpost.deploy.variables import KNOWN, warn_of_unknown

_DEPLOY = Path(__file__).parents[2] / "deploy"


def of_options(command: Any) -> set[str]:
    """The variables of a command's options, and of those of its commands."""
    found = set()
    for each in command.params:
        found |= {each.envvar} if isinstance(each.envvar, str) else set(each.envvar or ())
    for inner in getattr(command, "commands", {}).values():
        found |= of_options(inner)
    return found


def test_all_variables_of_options_are_known() -> None:
    assert of_options(commands()) == KNOWN
    assert set(CREDENTIALS.values()) <= KNOWN


def test_a_misspelt_variable_is_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown(["FINGERPOST_REGISTRYY", "FINGERPOST_X", "PATH", "FINGERPOST_API_KEY"])
    assert [each.getMessage() for each in caplog.records] == [
        "the environment variable FINGERPOST_REGISTRYY means nothing here: "
        "did you mean FINGERPOST_REGISTRY?",
        "the environment variable FINGERPOST_X means nothing here: remove it, or correct its name",
    ]


def test_what_units_and_kubernetes_set_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    units = "".join(path.read_text("utf-8") for path in (_DEPLOY / "systemd").glob("*.service"))
    names = re.findall(r"FINGERPOST_[A-Z_]+", units)
    assert "FINGERPOST_WORKER_OPTIONS" in names
    of_a_service = ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_12480_TCP_ADDR"]
    warn_of_unknown([*names, *(f"FINGERPOST_PROXY_{each}" for each in of_a_service)])
    assert not caplog.records
