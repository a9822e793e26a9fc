"""Groups of options that several subcommands share, each defined once and given as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Option", "takes_group"]

# Name, type with its option, default.
Option = tuple[str, Any, Any]


def takes_group(
    command: Callable[..., None],
    argument: str,
    options: Sequence[Option],
    make: Callable[..., object],
) -> Callable[..., None]:
    """Give a subcommand a group of options; it gets one value for all of them.

    Typer reads a function's signature: that of the decorated function has the options instead of
    the argument.

    Args:
        command: the subcommand.
        argument: the name of its argument for the value.
        options: the options, in the order of the help text.
        make: makes the value of the options' values, which it gets by their names.
    """

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        values = {name: given.pop(name) for name, _, _ in options}
        command(**given, **{argument: make(**values)})

    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name != argument]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in options
    ]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + added
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    del wrapped.__wrapped__
    return wrapped
