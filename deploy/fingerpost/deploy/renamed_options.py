"""Options of the command line that have a new name: the old one is an error that names the new one.

Typer alone would answer "No such option".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["RENAMED_OPTIONS", "check_renamed_options"]

RENAMED_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {}
"""For each subcommand (`worker`, `model check`), the new name of each old one.

For example `{"worker": {"--max-wait": "--max-wait-ms"}}`. An entry is removed one release later.
"""


def check_renamed_options(
    arguments: Sequence[str],
    renamed: Mapping[str, Mapping[str, str]] = RENAMED_OPTIONS,
) -> None:
    """Reject old names of options, before the command line is parsed.

    Args:
        arguments: the command line without the program's name.
        renamed: see `RENAMED_OPTIONS`.

    Raises:
        ConfigurationError: an option has its old name; the message says the new one.
    """
    for command in (" ".join(arguments[:1]), " ".join(arguments[:2])):
        names = renamed.get(command, {})
        for argument in arguments:
            if argument == "--":
                break
            option = argument.partition("=")[0]
            if option in names:
                raise ConfigurationError(
                    f"`fingerpost {command}` has no option {option} any more: use {names[option]}"
                )
