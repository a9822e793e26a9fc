"""The warm parent of `fingerpost` commands, see `warm.py`: imports all, then forks.

Called as `python -m tests.support.warm_parent DESCRIPTOR`, a socket on which each request comes
with the descriptors that the command shall have. It has one thread and opens nothing, so that a
child is as if it had just imported the modules itself.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import fingerpost
from fingerpost.deploy import cli, console

__all__: list[str] = []

_EVERY_WARNING_IS_AN_ERROR = ("error", None, Warning, None, 0)
# What commands import as they run.
_LATER = ("typer._adapters", "typer.rich_utils", "pydantic.fields", "aiohttp.web", "uvloop")
# What a machine may lack, or what must not be in a process that has not asked for it.
_LEFT_OUT = ("fingerpost.client.adapters", "fingerpost.worker.backends", "fingerpost.testing")


def import_all() -> None:
    """Import all modules of Fingerpost but those that need a framework."""
    for module in pkgutil.walk_packages(fingerpost.__path__, "fingerpost."):
        if not module.name.startswith(_LEFT_OUT) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _LATER:
        importlib.import_module(name)


def serve(control: socket.socket) -> bool:
    """Fork a child for each request. Returns True in a child, False when no more come."""
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1 << 20, 64)
        if not message:
            return False
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            # Ends at once, so that its child gets the process of the tests as its parent.
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            for each in (reading, writing):
                os.close(each)
            control.close()
            become(json.loads(message), descriptors)
            return True
        os.close(writing)
        for each in descriptors:
            os.close(each)
        child_id = os.read(reading, 100)
        os.close(reading)
        os.waitpid(between, 0)
        control.send(child_id)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what a new one would be that was asked for."""
    if request["new_session"]:
        os.setsid()
    if request["group"] >= 0:
        os.setpgid(0, request["group"])
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 512) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for source, target in zip(high, request["descriptors"], strict=True):
        os.dup2(source, target, inheritable=True)
        os.close(source)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name, (soft, hard) in request["limits"].items():
        kind = getattr(resource, name)
        if resource.getrlimit(kind) != (soft, hard):
            resource.setrlimit(kind, (soft, hard))
    _set_warnings(request["environment"].get("PYTHONWARNINGS"))
    _open_streams()
    _make_consoles()
    path = Path(cli.__file__)
    sys.path[0] = request["cwd"]
    sys.argv = [str(path), *request["arguments"]]
    sys.orig_argv = [sys.executable, "-m", cli.__name__, *request["arguments"]]
    main = vars(sys.modules["__main__"])
    main["__spec__"], main["__package__"] = cli.__spec__, cli.__package__
    main["__file__"], main["__doc__"] = str(path), cli.__doc__


def _set_warnings(wanted: str | None) -> None:
    """Filter as PYTHONWARNINGS says, instead of what the warm parent was started with."""
    filters = [each for each in warnings.filters if each != _EVERY_WARNING_IS_AN_ERROR]
    if wanted:
        filters.insert(0, (wanted, None, Warning, None, 0))
    warnings.filters[:] = filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    sys.warnoptions[:] = [wanted] if wanted else []


def _open_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        file = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115
        new = io.TextIOWrapper(
            file, encoding=old.encoding, errors=old.errors,
            line_buffering=number == 2 or os.isatty(number),
        )  # fmt: skip
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _make_consoles() -> None:
    """Let those that modules have already be as if made now: Rich looks at the streams then."""
    names = ("out", "err")
    consoles = [getattr(console, name) for name in names]
    importlib.reload(console)
    for name, each in zip(names, consoles, strict=True):
        vars(each).clear()
        vars(each).update(vars(getattr(console, name)))
        setattr(console, name, each)


def _main() -> None:
    import_all()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            control.send(b"ready")
            is_child = serve(control)
        except KeyboardInterrupt:
            return
    if is_child:
        cli.main()


if __name__ == "__main__":
    _main()
