"""The help of every command, in the notation that people know."""

from __future__ import annotations

import importlib
import re

import pytest
import typer
from typer.testing import CliRunner

from fingerpost.deploy import cli
from fingerpost.deploy.command_help import make_readable

pytestmark = pytest.mark.slow  # every command is imported


def helps() -> dict[str, str]:
    """The help of each command, and of each command of its groups."""
    app = typer.Typer()
    for name in cli._COMMANDS:
        importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)
    make_readable(app)
    runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"})
    names: list[tuple[str, ...]] = []
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        names.append((name,))
        names += [(name, each) for each in vars(command).get("commands", ())]
    shown = {}
    for each in names:
        done = runner.invoke(app, [*each, "--help"])
        assert done.exit_code == 0, done.output
        shown[" ".join(each)] = done.output
    return shown


def test_no_help_shows_pythons_types_or_braces() -> None:
    shown = helps()
    assert len(shown) >= 30
    for name, text in shown.items():
        assert not re.findall(r"\{[A-Z]|<[a-z]|list\[", text), (name, text)
    assert re.search(r"Usage: .* classify \[OPTIONS\] IMAGE\.\.\.\s", shown["classify"])
    assert re.search(r"Usage: .* bench \[OPTIONS\] MODEL \[FILE\|DIR\.\.\.\]\s", shown["bench"])
    assert re.search(r"--top +INTEGER \[x>=1\]", shown["classify"])
    assert re.search(r"--learning-rate +NUMBER ", shown["train"])
    assert re.search(r"--check +http\|ttl\|https ", shown["worker"])
    assert re.search(r"--json +Print JSON", shown["status"])
