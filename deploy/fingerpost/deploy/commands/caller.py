"""`fingerpost caller`: make the keys of those who may ask, and look at the policy file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json

__all__ = ["add_to"]

CallersPath = Annotated[
    Path,
    typer.Option("--callers", envvar="FINGERPOST_CALLERS", metavar="FILE", help="The policy file."),
]
_DEFAULT: Final = Path("callers.toml")


def add_to(app: typer.Typer) -> None:
    """Add the subcommands."""
    group = typer.Typer(
        name="caller",
        help="Make the keys of those who may ask a proxy or worker, and look at the policy file.",
        no_args_is_help=True,
    )
    group.command("add")(add)
    group.command("list")(list_callers)
    app.add_typer(group)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name for the caller.")],
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="T", help="The tenant that its work counts for.")
    ] = "default",
    role: Annotated[
        Literal["view", "operate", "admin"] | None,
        typer.Option("--role", help="What it may do by the admin API; nothing without."),
    ] = None,
    callers: CallersPath = _DEFAULT,
) -> None:
    """Make an API key, add its SHA-256 to the policy file, and show the key once.

    Servers that use the file read it again by themselves. The file is made if there is none, and
    the tenant if the file has it not.
    """
    from fingerpost.security.callers.policy_editor import add_caller

    added = add_caller(callers, name, tenant=tenant, role=role or "")
    if added.made_tenant:
        err.print(f"{callers} had no tenant {tenant}: it was added, without limits")
    err.print(f"{name} was added to {callers}. This key is shown once, and is not kept:")
    typer.echo(added.key)


def list_callers(*, callers: CallersPath = _DEFAULT, json: options.Json = False) -> None:
    """Check the policy file, and show its callers."""
    from fingerpost.security.callers.policy_file import read_policy

    entries = read_policy(callers).entries
    if json:
        print_json(
            [
                {
                    "name": each.caller.identity,
                    "tenant": each.caller.tenant,
                    "role": each.caller.role,
                    "models": each.caller.rights.models,
                    "disabled": each.disabled,
                }
                for each in entries
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("CALLER", "TENANT", "ROLE", "MODELS", "STATE"):
        table.add_column(column, no_wrap=True, overflow="fold")
    for each in entries:
        models = each.caller.rights.models
        table.add_row(
            each.caller.identity,
            each.caller.tenant,
            each.caller.role or "-",
            "all" if models is None else ", ".join(models) or "none",
            "disabled" if each.disabled else "",
        )
    out.print(table)
