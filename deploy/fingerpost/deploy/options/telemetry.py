"""The options of `fingerpost worker` for its access log and traces."""

from __future__ import annotations

from typing import Annotated, Final

import typer

__all__ = ["AccessLogFile", "Tracing"]

_PANEL: Final = "Observing"

AccessLogFile = Annotated[
    str | None,
    typer.Option(
        "--access-log",
        envvar="FINGERPOST_ACCESS_LOG",
        metavar="-|FILE",
        help="Write a line of JSON for each request; - is standard output.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Tracing = Annotated[
    bool,
    typer.Option(
        "--tracing",
        help="Send OpenTelemetry traces, set up by the OTEL_... variables; on where they name a "
        "collector.",
        rich_help_panel=_PANEL,
    ),
]
