"""The Nomad job files, read by a strict parser of HCL: no agent is here to run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
from tests.support.command_line import commands

_ROOT = Path(__file__).parents[2]
_JOBS = sorted((_ROOT / "deploy" / "nomad").glob("*.nomad.hcl"))

# Nomad's job specification, as far as these files use it: what each block may have in it.
_KNOWN = {
    "": {"variable", "job"},
    "variable": {"type", "default", "description", "validation"},
    "validation": {"condition", "error_message"},
    "job": {"datacenters", "type", "update", "group"},
    "update": {
        *("max_parallel", "stagger", "health_check", "min_healthy_time", "healthy_deadline"),
        *("progress_deadline", "auto_revert"),
    },
    "group": {"count", "shutdown_delay", "network", "spread", "service", "task"},
    "network": {"mode", "port", "dynamic"},
    "port": {"static"},
    "spread": {"attribute"},
    "service": {"name", "provider", "port", "check"},
    "check": {"name", "type", "path", "interval", "timeout"},
    "task": {"driver", "kill_signal", "kill_timeout", "config", "resources"},
    "config": {
        *("image", "network_mode", "readonly_rootfs", "cap_drop", "security_opt", "pids_limit"),
        *("args", "mount"),
    },
    "mount": {"type", "source", "target", "readonly", "tmpfs_options"},
    "tmpfs_options": {"size"},
    "resources": {"cpu", "memory", "dynamic"},
    "dynamic": {"for_each", "labels", "content"},
    "content": {"count", "static"},
}
_LABELLED = {"variable", "job", "group", "port", "task", "dynamic"}
# What Nomad sets in a task's environment; the port's label is ours.
_RUNTIME = {"NOMAD_IP_http", "NOMAD_PORT_http", "NOMAD_PORT_grpc", "node.unique.id"}
_DURATION = re.compile(r"\d+(s|m)")


def blocks(value: dict[str, Any], kind: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each block with its kind, without the labels in between."""
    yield kind, value
    for key, inside in value.items():
        for each in inside if isinstance(inside, list) else []:
            if isinstance(each, dict) and not key.startswith("__"):
                held = next(iter(each.values())) if key in _LABELLED else each
                yield from blocks(held, key)


@pytest.fixture(params=_JOBS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return path.read_text("utf-8")


def test_there_is_a_job_for_each_role() -> None:
    assert [path.name for path in _JOBS] == ["proxy.nomad.hcl", "worker.nomad.hcl"]


def test_blocks_and_keys_are_nomads(text: str) -> None:
    for kind, block in blocks(hcl2.loads(text)):
        assert kind in _KNOWN
        unknown = {key for key in block if not key.startswith("__")} - _KNOWN[kind]
        assert not unknown, f"{kind}: {unknown}"
        for key, value in block.items():
            if key.endswith(("_timeout", "_delay", "_deadline", "_time", "interval", "stagger")):
                assert _DURATION.fullmatch(str(value).strip('"')), key


def test_each_variable_is_declared_used_and_described(text: str) -> None:
    declared = {
        name.strip('"'): body
        for variable in hcl2.loads(text)["variable"]
        for name, body in variable.items()
    }
    jobs = text[text.index("\njob ") :]
    assert declared.keys() == set(re.findall(r"\bvar\.(\w+)", jobs))
    assert all(body["description"] for body in declared.values())
    assert set(re.findall(r"\$\{([\w.]+)\}", jobs)) <= _RUNTIME
    # A value that is refused: the message names the variable.
    for name, body in declared.items():
        for each in body.get("validation", ()):
            assert f"The variable {name} must be" in each["error_message"]


def test_the_arguments_are_those_of_the_command(text: str) -> None:
    tasks = [block for kind, block in blocks(hcl2.loads(text)) if kind == "config"]
    (config,) = tasks
    command, *arguments = re.findall(r'"([\w/-]+)"', str(config["args"]))
    known = {option for each in commands().commands[command].params for option in each.opts}
    used = {each for each in arguments if each.startswith("--")}
    assert (
        {"--registry", {"worker": "--grpc-port", "proxy": "--xds-port"}[command]} <= used <= known
    )
    assert str(config["readonly_rootfs"]).lower() == "true"
    assert 0 < int(config["pids_limit"]) <= 4096
    assert [str(each).strip('"') for each in config["cap_drop"]] == ["all"]


def test_the_parser_is_strict(text: str) -> None:
    for wrong in (text.replace("{", "", 1), text.replace('group "', 'group = "', 1), text + "}"):
        with pytest.raises(Exception, match="."):
            hcl2.loads(wrong)


def test_the_file_says_what_was_tried(text: str) -> None:
    head = text[: text.index("\nvariable")]
    assert "What was tried" in head
    assert "no Nomad agent has run this job" in head
