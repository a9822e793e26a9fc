"""The `fingerpost` command."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fingerpost.basics.printable import printable
from fingerpost.deploy.command_help import make_readable
from fingerpost.deploy.commit import commit
from fingerpost.deploy.console import err, out
from fingerpost.deploy.credentials import use_credentials
from fingerpost.deploy.logs import start_logging
from fingerpost.deploy.renamed_options import check_renamed_options
from fingerpost.deploy.standard_streams import check_output, discard_output, open_standard_streams
from fingerpost.errors import FingerpostError
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_commands", "app", "main"]


class _Commands(TyperGroup):
    """The commands; what is wrong with their arguments is shown without control characters.

    An argument may be the name of a stranger's file, through a pattern of the shell.
    """

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        if hasattr(error, "format_message") and isinstance(message, str):  # of Typer or Click
            vars(error)["message"] = printable(message)
        raise


app = typer.Typer(
    name="fingerpost",
    cls=_Commands,
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
    "infer",
    "stream",
    "bench",
    "evaluate",
    "model",
    "worker",
    "proxy",
    "registry",
    "register",
    "caller",
    "resolve",
    "xds_bootstrap",
    "status",
    "drain",
    "doctor",
    "join",
    "ca",
    "keys",
    "lease",
    "up",
    "demo",
)

# Those that do nothing but print.
_PRINTING = (
    "classify",
    "doctor",
    "evaluate",
    "infer",
    "model",
    "resolve",
    "status",
    "xds-bootstrap",
)

# Modules that the bare install does not bring, and the extra that does.
_EXTRAS = {
    "numpy": "python",  # all workers need it; an error of its own names the model's framework
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "matplotlib": "bench",
    "onnxruntime": "onnx",
    "onnx": "quantize",
    "tf2onnx": "export",
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "torch": "torch",
    "cv2": "caffe",
    "opentelemetry": "otel",
    "pynvml": "gpu",
    "pycocotools": "evaluate",
    "sklearn": "demo",
    "kazoo": "zookeeper",
    "cryptography": "security",
    "joserfc": "security",
    "grpc": "xds",
}

# What a full disk says, also that of standard output: nothing is wrong with this program.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _print_version(wanted: bool) -> None:
    if wanted:
        check_output()
        known = commit()
        out.print(f"fingerpost {__version__}{f' (commit {known})' if known else ''}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
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
    if context.invoked_subcommand in _PRINTING:
        check_output()


def main() -> None:
    """Run the command; a `FingerpostError` is one line on standard error and exit status 1."""
    open_standard_streams()
    add_commands()
    start_logging("error")  # services log more: see their --log-level
    try:
        _raise_on_interrupt()
        check_renamed_options(sys.argv[1:])
        use_credentials(os.environ)
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except FingerpostError as error:
        from fingerpost.deploy.setting_names import with_options

        _fail(with_options(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        remedy = f"pip install 'fingerpost[{extra}]', or take the image that has it"
        _fail(f"this needs {error.name}, which is not installed: {remedy}")
    except PermissionError as error:
        if error.filename is None:
            raise
        _fail(
            f"{error.filename} is not open to this user ({os.geteuid()}): {error.strerror}; "
            "give that user rights on it and on the folders above it"
        )
    except OSError as error:
        if error.errno not in _FULL:
            raise
        discard_output()
        place = error.filename or "the output"
        _fail(f"{place} cannot be written: {error.strerror}; make room, and run this again")


def add_commands() -> None:
    """Add every command to `app`; the documentation's reference does the same."""
    for name in _COMMANDS:
        importlib.import_module(f"fingerpost.deploy.commands.{name}").add_to(app)
    make_readable(app)


def _raise_on_interrupt() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again, which `entry` has put off: commands clean up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(message: str) -> None:
    err.print(f"fingerpost: {printable(message)}")
    sys.exit(1)


if __name__ == "__main__":
    main()
