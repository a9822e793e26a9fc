"""The `fingerpost` command."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from fingerpost.deploy.commit import commit
from fingerpost.deploy.console import err, out, start_logging
from fingerpost.deploy.renamed_options import check_renamed_options
from fingerpost.errors import FingerpostError
from fingerpost.registry.version import __version__

__all__ = ["add_commands", "app", "main"]

app = typer.Typer(
    name="fingerpost",
    help="Service discovery with client-side routing for image inference: "
    "ask where the workers are, then send images straight to them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)

_COMMANDS = (
    "train",
    "classify",
    "stream",
    "bench",
    "model",
    "worker",
    "proxy",
    "registry",
    "resolve",
    "status",
    "drain",
    "up",
    "demo",
)

# Modules that the bare install does not bring, and the extra that does.
_EXTRAS = {
    "numpy": "tensorflow",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "matplotlib": "bench",
    "onnxruntime": "onnx",
    "onnx": "export",
    "tf2onnx": "export",
    "torch": "torch",
    "cv2": "caffe",
    "opentelemetry": "otel",
    "pynvml": "gpu",
    "sklearn": "demo",
    "kazoo": "zookeeper",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        known = commit()
        out.print(f"fingerpost {__version__}{f' (commit {known})' if known else ''}", markup=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and the commit where it is known.",
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Run the command; a `FingerpostError` is one line on standard error and exit status 1."""
    add_commands()
    start_logging("error")  # services log more: see their --log-level
    try:
        check_renamed_options(sys.argv[1:])
        app()
    except FingerpostError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(f"this needs {error.name}, which is not installed: pip install 'fingerpost[{extra}]'")


def add_commands() -> None:
    """Add every command to `app`; the documentation's reference does the same."""
    for name in _COMMANDS:
        importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)


def _fail(message: str) -> None:
    err.print(f"fingerpost: {message}", markup=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
