"""What `--model` names: a model on disk, or one of a cluster."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_path", "service_of"]


def is_path(model: str) -> bool:
    """Whether it is a file or folder, by its form or because there is one."""
    return "/" in model or Path(model).exists()


def service_of(path: Path) -> str:
    """The service of a model's folder: `digits` for `models/digits`."""
    path = path.resolve()
    return f"{path.parent.name}@{path.name}" if path.name.isdigit() else path.stem
