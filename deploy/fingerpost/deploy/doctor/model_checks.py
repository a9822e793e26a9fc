"""Whether a machine's models are there, can run here, and have room on disk for another version."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.basics.disk_room import ENOUGH_BYTES, room_bytes
from fingerpost.deploy.doctor.finding import Finding, error, ok, warning
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_models"]

_MB: Final = 10**6
# A folder with more files is not one of models, and is not walked to its end.
_MOST_FILES: Final = 100_000
# Models whose files are looked into, in the order of their names.
_MOST_MODELS: Final = 50


def check_models(folder: Path) -> Iterator[Finding]:
    """The findings for a folder of models, `NAME/VERSION/`, or for one model."""
    try:
        names = sorted(each.name for each in os.scandir(folder) if not each.name.startswith("."))
        room = room_bytes(folder)
    except NotADirectoryError:
        yield from _one_file(folder)
        return
    except OSError as failed:
        yield error(
            "models",
            f"{folder} cannot be read: {failed.strerror}",
            "name the folder with the models, and let the worker's user read it",
        )
        return
    if not names:
        yield error("models", f"{folder} is empty", "copy a model there, as NAME/VERSION/")
    else:
        yield ok("models", f"{folder} has {', '.join(names[:8])}{' ...' if names[8:] else ''}")
        for name in names[:_MOST_MODELS]:
            yield from _runs(folder / name)
    sizes = {name: _largest_version(folder / name) for name in names}
    yield _room("disk", room, folder, sizes)
    if signed := {name: size for name, size in sizes.items() if _is_signed(folder / name)}:
        yield _room_for_copies(signed)


def _one_file(file: Path) -> Iterator[Finding]:
    if os.access(file, os.R_OK):
        yield ok("models", f"{file} is one model")
        yield from _runs(file)
    else:
        yield error("models", f"{file} cannot be read", "let the worker's user read it")


def _runs(path: Path) -> Iterator[Finding]:
    """An error where a model's files are not right, or its framework is not installed here."""
    from fingerpost.worker.backends.loading import check_task
    from fingerpost.worker.backends.needed import NEEDED
    from fingerpost.worker.models.files import find_model

    try:
        found = find_model(path, served=False)
        check_task(found)
    except (ConfigurationError, OSError) as failed:
        reason = next(iter(str(failed).splitlines()), repr(failed))
        yield error(f"model {path.name}", reason, f"fingerpost model check {path}")
        return
    needed = NEEDED[found.manifest.framework]
    if importlib.util.find_spec(needed.module) is None:
        yield error(
            f"model {path.name}",
            f"{path} needs {needed.name}, which is not installed here",
            needed.remedy,
        )


def _room(check: str, room: int | None, folder: Path, sizes: Mapping[str, int]) -> Finding:
    """Whether there is room for another version of the largest model."""
    if room is None:
        return ok(check, f"{folder} is on a disk that is never written to")
    largest = max(sizes, key=lambda name: sizes[name], default="")
    text = f"{room // _MB:,} MB are free beside {folder}"
    remedy = "remove old versions, or use a larger disk"
    if room < ENOUGH_BYTES:
        return error(check, f"only {text}", remedy)
    if largest and room < sizes[largest]:
        size = sizes[largest] // _MB
        return warning(check, f"{text}, and another {largest} has {size:,} MB", remedy)
    return ok(check, text)


def _room_for_copies(sizes: Mapping[str, int]) -> Finding:
    """Whether workers that ask for signatures can copy the signed models, as they do."""
    check, needed = "temporary files", sum(sizes.values())
    remedy = (
        "make room there, or let TMPDIR name a larger folder: a worker that asks for signatures "
        "copies each signed version there"
    )
    try:
        folder = Path(tempfile.gettempdir())
        room = room_bytes(folder) or 0
    except OSError as failed:
        return warning(check, f"there is no folder for them: {failed.strerror}", remedy)
    text = f"{room // _MB:,} MB are free in {folder}, and copies of the signed models have "
    text += f"{needed // _MB:,} MB"
    return warning(check, text, remedy) if room < needed else ok(check, text)


def _is_signed(model: Path) -> bool:
    from fingerpost.worker.models.signature import SIGNATURE_FILE

    return any(each.is_file() for each in model.glob(f"*/{SIGNATURE_FILE}"))


def _largest_version(model: Path) -> int:
    """The bytes of the largest version of a model, or of a file."""
    versions = [each for each in model.glob("*") if each.name.isdecimal() and each.is_dir()]
    return max((_size(each) for each in versions or [model]), default=0)


def _size(path: Path) -> int:
    """The bytes of all files in a folder, or of a file."""
    total = path.lstat().st_size if path.is_file() else 0
    count = 0
    for folder, _, files in os.walk(path):
        for name in files:
            count += 1
            if count > _MOST_FILES:
                return total
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:  # it has just been removed
                continue
    return total
