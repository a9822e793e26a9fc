"""The help of every subcommand in the usual notation: `IMAGE...`, `--top INTEGER`.

Typer 0.29 prints Python's types and braces (`{IMAGE...}...  <list[str]>`, `<bool>`), which say
nothing to who does not know Typer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperArgument, TyperCommand, TyperGroup

if TYPE_CHECKING:
    import typer

__all__ = ["ReadableCommand", "ReadableGroup", "make_readable"]

_TYPES: Final = {
    "int": "INTEGER",
    "int range": "INTEGER",
    "float": "NUMBER",
    "float range": "NUMBER",
    "str": "TEXT",
    "path": "PATH",
}
# Typer's methods for the column of types; before 0.29 it had none, and wrote INTEGER itself.
_TYPE: Final = "display_type"
_TYPE_COLUMN: Final = "display_type_rich"


class ReadableGroup(TyperGroup):
    """A group of subcommands whose help has metavars instead of types."""

    def get_params(self, ctx: Any) -> Any:
        """See `ReadableCommand`."""
        return _readable(super().get_params(ctx), ctx)


class ReadableCommand(TyperCommand):
    """A subcommand whose help has metavars instead of types."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, each with a metavar; flags have none."""
        return _readable(super().get_params(ctx), ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] IMAGE...`; what may be left out is in brackets."""
        pieces = [] if self.options_metavar is None else [self.options_metavar]
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument):
                name = (param.metavar or "").removesuffix("...")
                name += "..." if param.nargs != 1 else ""
                pieces.append(name if param.required else f"[{name}]")
        return pieces


def make_readable(app: typer.Typer) -> None:
    """Use these classes for every subcommand of `app`, its groups and their subcommands."""
    for command in app.registered_commands:
        command.cls = ReadableCommand
    for group in app.registered_groups:
        group.cls = ReadableGroup
        if group.typer_instance is not None:
            make_readable(group.typer_instance)


def _readable(params: Any, ctx: Any) -> Any:
    for param in params:
        if isinstance(param, TyperArgument):
            param.metavar = param.metavar or str(param.name).upper()
            vars(param)[_TYPE_COLUMN] = _nothing  # its name is a column of its own
        elif getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.metavar is None and hasattr(param, _TYPE):
            shown = str(getattr(param, _TYPE)(ctx)).strip("<>")
            param.metavar = _TYPES.get(shown, shown)  # choices stay: `http|ttl`
    return params


def _nothing(ctx: object) -> None:
    del ctx
