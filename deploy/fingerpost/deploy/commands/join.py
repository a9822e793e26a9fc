"""`fingerpost join`: make this machine a node of a cluster."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy.commands.doctor import print_findings
from fingerpost.deploy.console import err, out
from fingerpost.deploy.logs import check_log_options
from fingerpost.deploy.options.cluster import ApiKey, TokenFile
from fingerpost.deploy.options.registry import registry_arguments, takes_registry_options
from fingerpost.deploy.options.tls import server_tls_arguments, takes_server_tls_options
from fingerpost.errors import ConfigurationError, FingerpostError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.finding import Finding
    from fingerpost.deploy.join.node import Node
    from fingerpost.deploy.join.plan import PlannedFile
    from fingerpost.deploy.processes.worker_process import PreparedWorker

    # The registry's URL, access to it, certificates, proxies, and what they are shown.
    _Cluster = tuple[str, RegistryConfig, TlsConfig | None, tuple[str, ...], Credential | None]

__all__ = ["add_to"]

# Until the registry lists the workers, which have registered, and until the proxies name them.
_LISTED_S: Final = 30.0
_NAMED_S: Final = 10.0
# What `join` and its unit give the workers; the value counts that `doctor` has looked at.
_OF_JOIN: Final = (
    "--model", "--models", "--port", "--registry", "--registry-ca-file", "--registry-cert-file",
    "--registry-key-file", "--registry-token-file", "--registration-keys", "--tls-cert",
    "--tls-client-ca", "--tls-key",
)  # fmt: skip
# Findings of `doctor` that say what the workers would say of their models.
_OF_MODELS: Final = ("model", "models")


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
    from fingerpost.deploy.doctor.node_workers import NodeWorkers
    from fingerpost.deploy.join.node import Node
    from fingerpost.deploy.join.plan import JoinPlan, credentials_of

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
    plan = JoinPlan.make(
        registry=registry,
        models=models,
        command=Path(sys.executable).with_name("fingerpost"),
        options=["--port", str(port), *(worker_options or ())],
        credentials=credentials_of(registry_config, tls),
    )
    access = [
        *(f"--models={models}", f"--registry={registry}", f"--port={port}"),
        *registry_arguments(registry_config),
        *server_tls_arguments(tls if tls and tls.serves else None, asks_workers=False),
    ]
    workers = NodeWorkers(*_prepared(access, worker_options or ()), models=models)
    if not dry_run:
        node.check(plan)
    taken = dry_run or node.active  # by the workers that run, perhaps
    proxies = tuple(proxy or ())
    findings = examine(
        registry=registry,
        registry_config=registry_config,
        proxies=proxies,
        tls=tls,
        credential=credential,
        models=models,
        port=0 if taken else port,
        processes=workers.processes,
        uds=workers.uds,
        running=taken,
        token_file=token_file,
        grpc_port=workers.grpc_port and (0 if taken else workers.grpc_port),
        zmq_port=workers.zmq_port and (0 if taken else workers.zmq_port),
    )
    wrong = {each.check.partition(" ")[0] for each in findings if each.level is Level.ERROR}
    findings += [
        each for each in workers.look() if each.check != "models" or wrong.isdisjoint(_OF_MODELS)
    ]
    print_findings([each for each in findings if each.level is not Level.OK] or findings)
    if exit_status(findings, strict=False) and not (force or dry_run):
        err.print("nothing was changed: mend the errors, or give --force")
        raise typer.Exit(EXIT_ERRORS)
    workers.check_start()
    changes = node.changes(plan)
    if dry_run:
        _show(changes)
        return
    cluster = (registry, registry_config, tls, proxies, credential)
    first, made = not node.joined, node.missing_folders(plan)
    try:
        answers = _carry_out(node, changes, timeout, cluster)
    except FingerpostError as failed:
        if not first:
            raise ConfigurationError(
                f"{failed}; `fingerpost join --undo` takes all of it back"
            ) from failed
        node.undo()
        node.remove_folders(made)
        raise ConfigurationError(f"{failed}; all that was written is removed again") from failed
    for worker, answer in answers.items():
        out.print(f"{worker} {answer}")
    missing = _missing(workers.model_names(), models, answers, cluster)
    if missing:
        print_findings(missing)
    err.print("to undo it: fingerpost join --undo")
    if missing:
        raise typer.Exit(EXIT_ERRORS)


def _prepared(
    access: Sequence[str], options: Sequence[str]
) -> tuple[PreparedWorker, dict[str, Any]]:
    """What a worker makes of its arguments, and their values by name; it changes nothing."""
    from fingerpost.deploy.commands.worker import worker, worker_command

    for name in (each.partition("=")[0] for each in options):
        if name == "--device":
            raise ConfigurationError(
                "--device has no effect on workers of all GPUs: name some with --devices"
            )
        if name in _OF_JOIN:
            raise ConfigurationError(
                f"{name} stands among the options of the workers: give it to join itself, before "
                "the --"
            )
    values: dict[str, Any] = {}
    made: list[PreparedWorker] = []

    def keep(**given: Any) -> None:
        check_log_options(given["log_level"], given["log_format"])
        values.update(given)
        made.append(worker(**given))

    app = typer.Typer()
    app.callback()(lambda: None)  # a single command would have no name
    app.command("worker")(worker_command(keep))
    command = vars(typer.main.get_command(app))["commands"]["worker"]
    of_unit = ["--host", "0.0.0.0", "--devices", "all"]  # noqa: S104 - as the unit has it
    with command.make_context("fingerpost worker", [*of_unit, *access, *options]) as context:
        command.invoke(context)
    return made[0], values


def _carry_out(
    node: Node, changes: list[PlannedFile], timeout: float, cluster: _Cluster
) -> dict[str, str]:
    """Write the files and start the workers; return what each answered to its first image."""
    from fingerpost.deploy.join.first_image import send_first_images
    from fingerpost.deploy.join.plan import UNIT

    node.write(changes)
    for file in changes:
        err.print(f"wrote {file.path}")
    node.start(changed=bool(changes))
    err.print(f"starting {UNIT}")
    node.wait_started(timeout, lambda status: err.print(f"  {status}"))
    registry, registry_config, tls, proxies, credential = cluster
    return asyncio.run(
        send_first_images(
            registry, registry_config, tls, _LISTED_S, proxies=proxies, credential=credential
        )
    )


def _missing(
    names: Sequence[str], models: Path, answers: Mapping[str, str], cluster: _Cluster
) -> list[Finding]:
    """The models that no worker here serves, and the proxies that do not name the workers."""
    from fingerpost.deploy.doctor.finding import Level, error
    from fingerpost.deploy.doctor.serving_checks import check_named

    served = {each.rsplit(" ", 1)[1] for each in answers}
    found = [
        error(
            f"model {name}",
            "no worker of this machine serves it, as it cannot be loaded",
            f"fingerpost model check {models / name}",
        )
        for name in names
        if name not in served
    ]
    _, _, tls, proxies, credential = cluster
    named = asyncio.run(check_named(proxies, list(answers), tls, credential, _NAMED_S))
    return [*found, *(each for each in named if each.level is Level.ERROR)]


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
