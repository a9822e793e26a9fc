"""The Helm chart's values, schema and options, without Helm: `make test-kubernetes` renders it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.command_line import commands

from fingerpost.registry.version import __version__

_KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
_CHART = _KUBERNETES / "chart"
VALUES: dict[str, Any] = yaml.safe_load((_CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((_CHART / "values.schema.json").read_text())


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    (schema,) = schema.get("allOf", [schema]) if "properties" not in schema else [schema]
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    found: dict[str, Any] = SCHEMA["definitions"][name] if name else schema
    return found


def keys(values: Any, schema: dict[str, Any], path: str = "") -> tuple[set[str], set[str]]:
    """The keys of the values, and those of the schema of objects that have fixed keys."""
    schema = resolved(schema)
    given, known = set(), set()
    for name, inside in schema.get("properties", {}).items():
        known.add(f"{path}.{name}")
        if isinstance(values, dict) and isinstance(values.get(name), dict) and values[name]:
            below = keys(values[name], inside, f"{path}.{name}")
            given |= below[0]
            known |= below[1]
    if isinstance(values, dict) and "properties" in schema:
        given |= {f"{path}.{name}" for name in values}
    return given, known


def test_every_value_has_a_default_and_a_schema() -> None:
    given, known = keys(VALUES, SCHEMA)
    assert given <= known
    # `models` is one of several, and Helm itself passes `global`.
    missing = {each for each in known - given if ".models." not in each}
    assert missing == {".global"}


def test_the_schema_lets_no_unknown_key_through() -> None:
    def walk(schema: Any, path: str) -> None:
        if isinstance(schema, dict):
            if "properties" in schema and schema.get("type") in ("object", ["object", "null"]):
                assert schema["additionalProperties"] is False, path
            for name, each in schema.items():
                walk(each, f"{path}/{name}")

    walk(SCHEMA, "")


@pytest.mark.parametrize("command", ["worker", "proxy"])
def test_every_option_exists(command: str) -> None:
    folder = _CHART / "templates"
    own = (folder / {"worker": "workers.yaml", "proxy": "proxies.yaml"}[command]).read_text()
    common = (folder / "_helpers.tpl").read_text()
    known = {option for each in commands().commands[command].params for option in each.opts}
    used = set(re.findall(r"^ *- (--[a-z-]+)$", own + common, re.MULTILINE))
    assert len(used) > 10
    assert used <= known


def test_the_base_has_the_objects_of_the_chart() -> None:
    base = list(yaml.safe_load_all((_KUBERNETES / "base" / "fingerpost.yaml").read_text()))
    kinds = sorted(each["kind"] for each in base)
    assert kinds.count("Deployment") == 2
    assert {"Service", "PodDisruptionBudget", "NetworkPolicy", "Role", "ServiceAccount"} <= {*kinds}
    chart = yaml.safe_load((_CHART / "Chart.yaml").read_text())
    version = __version__.partition(".dev")[0]
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for each in base:
        if each["kind"] == "Deployment":
            assert each["metadata"]["labels"]["app.kubernetes.io/version"] == version
