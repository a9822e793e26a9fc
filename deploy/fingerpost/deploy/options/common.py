"""Options that subcommands of every kind share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = [
    "DEFAULT_CLUSTER",
    "AllowOrigins",
    "Cluster",
    "Deadline",
    "FollowParent",
    "Host",
    "Insecure",
    "Json",
    "JsonReport",
    "LogFormat",
    "LogLevel",
    "MaxPerClient",
    "Relay",
    "WaitForReady",
]

DEFAULT_CLUSTER: Final = "fingerpost"

Host = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 for clients on other machines.")
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Say nothing of listening without TLS where other machines can reach it.",
    ),
]
Relay = Annotated[
    bool,
    typer.Option(
        "--relay",
        help="Send images through the proxies, where this machine cannot reach the workers.",
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Name of the cluster in leases; workers refuse those of another one.",
    ),
]
Deadline = Annotated[
    float,
    typer.Option(
        metavar="S", min=0.001, help="How many seconds an image may take, including retries."
    ),
]
Priority = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Priority class of the images, such as batch for work that can wait.",
    ),
]
WaitForReady = Annotated[
    float,
    typer.Option(
        metavar="S",
        min=0.001,
        help="How many seconds to wait for a worker where none is healthy, or for the first answer "
        "of a proxy or registry.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JsonReport = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE|-", help="Write all figures as JSON; - is standard output."
    ),
]
AllowOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="ORIGIN",
        show_default=False,
        help="Let web pages of this origin send images by their scripts (CORS), such as "
        "https://app.example; * for all pages. May be given several times.",
    ),
]
MaxPerClient = Annotated[
    int | None,
    typer.Option(
        "--max-per-client",
        help="Most connections of one address; by default half of all, 0 means no limit (behind a "
        "load balancer).",
        show_default=False,
        min=0,
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar="FINGERPOST_LOG_LEVEL", metavar="LEVEL", help="debug, info, warning or error."
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        envvar="FINGERPOST_LOG_FORMAT",
        metavar="text|json",
        help="Log lines as text, or as JSON: an object with time, level, logger and message.",
    ),
]
FollowParent = Annotated[
    bool,
    typer.Option("--follow-parent", hidden=True, help="Exit when standard input ends."),
]
