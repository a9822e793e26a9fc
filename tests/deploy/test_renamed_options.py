from __future__ import annotations

import importlib

import pytest

from fingerpost.deploy import cli
from fingerpost.deploy.renamed_options import RENAMED_OPTIONS, check_renamed_options
from fingerpost.errors import ConfigurationError

RENAMED = {"worker": {"--old": "--new"}, "model check": {"--one": "--other"}}


@pytest.mark.parametrize(
    "line",
    [
        "worker --model x --old 3",
        "worker --old=3 --model x",
        "model check x --one",
    ],
)
def test_an_old_name_is_an_error_that_names_the_new_one(line: str) -> None:
    with pytest.raises(ConfigurationError, match="has no option --o.* any more: use --"):
        check_renamed_options(line.split(), RENAMED)


@pytest.mark.parametrize(
    "line",
    ["", "--help", "worker --new 3", "proxy --old 3", "worker --older", "worker -- --old", "model"],
)
def test_other_lines_pass(line: str) -> None:
    check_renamed_options(line.split(), RENAMED)


def test_no_old_name_is_in_use_and_each_new_one_exists() -> None:
    import typer
    import typer.core

    app = typer.Typer()
    for name in cli._COMMANDS:
        importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)
    group = typer.main.get_command(app)
    for path, names in RENAMED_OPTIONS.items():
        command = group
        for part in path.split():
            assert isinstance(command, typer.core.TyperGroup)
            command = command.commands[part]
        options = {option for each in command.params for option in each.opts}
        assert options >= set(names.values())
        assert options.isdisjoint(names)
