"""The whole `fingerpost` command, made once in a process: that takes a quarter of a second."""

from __future__ import annotations

import functools

import typer
import typer.core
from typer.testing import CliRunner, Result

from fingerpost.deploy import cli

__all__ = ["commands", "invoke"]


@functools.cache
def commands() -> typer.core.TyperGroup:
    """`fingerpost` with all of its commands, for those who read their options and help."""
    if not cli.app.registered_commands:
        cli.add_commands()
    group = typer.main.get_command(cli.app)
    assert isinstance(group, typer.core.TyperGroup)
    return group


def invoke(*arguments: str, **environment: str) -> Result:
    """Run `fingerpost` with these arguments in this process."""
    commands()
    return CliRunner(env=environment).invoke(cli.app, arguments)
