"""The options of servers for who may ask, and for the log of orders and refusals."""

from __future__ import annotations

from typing import Annotated, Final

import typer

__all__ = ["AuditLogFile", "CallersFile"]

_PANEL: Final = "Who may ask"

CallersFile = Annotated[
    str | None,
    typer.Option(
        "--callers",
        envvar="FINGERPOST_CALLERS",
        metavar="FILE",
        help="TOML file with the callers that may ask (a proxy) or send orders (a worker); "
        "`fingerpost caller add` writes it.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
AuditLogFile = Annotated[
    str | None,
    typer.Option(
        "--audit-log",
        envvar="FINGERPOST_AUDIT_LOG",
        metavar="-|FILE",
        help="Write a line of JSON for each order and each refusal; - is standard output.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
