"""`fingerpost doctor`: find what keeps a machine from serving, and say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import out, print_json, safe_text
from fingerpost.deploy.options.cluster import ApiKey, TokenFile
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.tls import takes_client_tls_options
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.deploy.doctor.finding import Finding

__all__ = ["add_to", "print_findings"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(takes_client_tls_options(doctor)))


def doctor(
    *,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            envvar="FINGERPOST_REGISTRY",
            metavar="URL",
            help="The registry that workers here will use; without it, only the machine is "
            "looked at.",
            show_default=False,
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy", metavar="URL", help="A proxy, which is asked to reach this machine; repeat."
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The models that are to be served here."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Port that workers will listen on; 0 tries a free one.", min=0, max=65535
        ),
    ] = 0,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            help="Port at which workers will serve gRPC (--grpc-port of theirs).",
            show_default=False,
            min=0,
            max=65535,
        ),
    ] = None,
    xds_port: Annotated[
        int | None,
        typer.Option(
            help="Port at which a proxy here will serve xDS (--xds-port of its).",
            show_default=False,
            min=0,
            max=65535,
        ),
    ] = None,
    zmq_port: Annotated[
        int | None,
        typer.Option(
            help="Port at which workers will serve ZeroMQ (--zmq-port of theirs).",
            show_default=False,
            min=0,
            max=65535,
        ),
    ] = None,
    uds: Annotated[
        str | None,
        typer.Option(
            "--uds",
            metavar="PATH",
            help="Unix socket at which workers will listen (--uds of theirs).",
            show_default=False,
        ),
    ] = None,
    serving: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Wait at most so long until each worker that runs here answers an image and each "
            "proxy names it; proxies are not asked to reach a port then.",
            min=0,
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings, too, end with status 3.")
    ] = False,
    api_key: ApiKey = None,
    token_file: TokenFile = None,
    json: options.Json = False,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
) -> None:
    """Look for what keeps this machine from serving, and say what to do about it.

    Ends with status 3 if something is an error. Nothing is changed.
    """
    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.examination import examine, exit_status
    from fingerpost.errors import ConfigurationError

    if registry is None and (proxy or serving is not None):
        option = "--proxy" if proxy else "--serving"
        raise ConfigurationError(f"{option} alone is not enough: give --registry URL, too")
    findings = examine(
        registry=registry,
        registry_config=registry_config,
        proxies=proxy or (),
        tls=tls,
        credential=Credential.of(api_key=api_key, token=None, token_file=token_file),
        models=models,
        port=port,
        grpc_port=grpc_port,
        xds_port=xds_port,
        zmq_port=zmq_port,
        uds=uds,
        token_file=token_file,
        serving_s=serving,
    )
    if json:
        print_json(
            [
                {
                    "check": each.check,
                    "level": each.level.name.lower(),
                    "message": each.message,
                    "remedy": each.remedy,
                }
                for each in findings
            ]
        )
    else:
        print_findings(findings)
    raise typer.Exit(exit_status(findings, strict=strict))


def print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding on a line, with its remedy below it, and the number of errors."""
    from fingerpost.deploy.doctor.finding import Level

    styles = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}
    width = max(len(each.check) for each in findings)
    for each in findings:
        line = safe_text(f"{each.level.name.lower():8}")
        line.stylize(styles[each.level])
        line.append_text(safe_text(f"{each.check:{width}}  {each.message}"))
        out.print(line)
        if each.remedy:
            out.print(safe_text(f"{'':{8 + width}}  -> {each.remedy}"))
    errors = sum(each.level is Level.ERROR for each in findings)
    warnings = sum(each.level is Level.WARNING for each in findings)
    counts = ((errors, "error"), (warnings, "warning"))
    out.print(", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts))
