"""`fingerpost join`: make this machine a node of a cluster."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy.commands.doctor import print_findings
from fingerpost.deploy.console import err, out
from fingerpost.deploy.options.cluster import ApiKey, TokenFile
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.tls import takes_server_tls_options
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.deploy.join.plan import PlannedFile

__all__ = ["add_to"]

# Until the registry lists the workers, which have registered.
_LISTED_S: Final = 30.0


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(takes_server_tls_options(join, asks_workers=True)))


def join(
    *,
    registry: Annotated[
        str | None,
        typer.Argument(metavar="REGISTRY", help="The registry's URL: consul://127.0.0.1:8500."),
    ] = None,
    worker_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTION ...]",
            help="Further options of the workers, as of `fingerpost worker --zone rack-7`.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Serve every model in this folder, NAME/VERSION/."),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy", metavar="URL", help="A proxy, which is asked to reach this machine; repeat."
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the first worker; further GPUs count up from it.", min=1024, max=65535
        ),
    ] = 12490,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long the workers may take to register.", min=1),
    ] = 600.0,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although `fingerpost doctor` finds errors.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written and run; change nothing.")
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Drain and stop the workers; remove what was written."),
    ] = False,
    api_key: ApiKey = None,
    token_file: TokenFile = None,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
) -> None:
    """Make this machine a node: check it, start workers on all of its GPUs, send the first image.

    Writes a unit of systemd and its settings. Run it again to change them. Run it as root.

    fingerpost join consul://127.0.0.1:8500 --models /srv/fingerpost/models
    """
    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.examination import EXIT_ERRORS, examine, exit_status
    from fingerpost.deploy.doctor.finding import Level
    from fingerpost.deploy.join.first_image import send_first_images
    from fingerpost.deploy.join.node import Node
    from fingerpost.deploy.join.plan import UNIT, JoinPlan, credentials_of

    credential = Credential.of(api_key=api_key, token=None, token_file=token_file)
    node = Node()
    if undo:
        _undo(node.undo())
        return
    if registry is None or models is None:
        raise ConfigurationError(
            "join needs the registry and the models: fingerpost join consul://127.0.0.1:8500 "
            "--models /srv/fingerpost/models"
        )
    options = ["--port", str(port), *(worker_options or ())]
    grpc_port = _checked(options)["grpc_port"]
    plan = JoinPlan.make(
        registry=registry,
        models=models,
        command=Path(sys.executable).with_name("fingerpost"),
        options=options,
        credentials=credentials_of(registry_config, tls),
    )
    if not dry_run:
        node.check(plan)
    proxies = tuple(proxy or ())
    findings = examine(
        registry=registry,
        registry_config=registry_config,
        proxies=proxies,
        tls=tls,
        credential=credential,
        models=models,
        port=0 if dry_run or node.active else port,
        grpc_port=0 if grpc_port is not None and (dry_run or node.active) else grpc_port,
    )
    print_findings([each for each in findings if each.level is not Level.OK] or findings)
    if exit_status(findings, strict=False) and not (force or dry_run):
        err.print("nothing was changed: mend the errors, or give --force")
        raise typer.Exit(EXIT_ERRORS)
    changes = node.changes(plan)
    if dry_run:
        _show(changes)
        return
    node.write(changes)
    for file in changes:
        err.print(f"wrote {file.path}")
    node.start(changed=bool(changes))
    err.print(f"starting {UNIT}")
    node.wait_started(timeout, lambda status: err.print(f"  {status}"))
    answers = asyncio.run(
        send_first_images(
            registry, registry_config, tls, _LISTED_S, proxies=proxies, credential=credential
        )
    )
    for worker, answer in answers.items():
        out.print(f"{worker} {answer}")
    err.print("to undo it: fingerpost join --undo")


def _checked(options: list[str]) -> dict[str, Any]:
    """The values of the worker's options, which refuses what it does not know before any change."""
    from fingerpost.deploy.commands import worker

    app = typer.Typer()
    app.callback()(lambda: None)  # a single command would have no name
    worker.add_to(app)
    command = vars(typer.main.get_command(app))["commands"]["worker"]
    found: dict[str, Any] = command.make_context("fingerpost worker", list(options)).params
    return found


def _show(changes: Sequence[PlannedFile]) -> None:
    for file in changes:
        kind = "folder" if file.content is None else "file"
        out.print(f"{kind} {file.path} (mode {file.mode:04o})")
        for line in () if file.content is None or file.secret else file.content.splitlines():
            out.print(f"    {line}")
    for command in ("daemon-reload", "enable", "start"):
        out.print(f"run systemctl {command}")
    out.print("nothing was changed")


def _undo(gone: Sequence[Path]) -> None:
    for path in gone:
        err.print(f"removed {path}")
    if not gone:
        err.print("there is nothing of `fingerpost join` on this machine")
